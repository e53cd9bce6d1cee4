// Blocks of triangular factors: those on the diagonal, and the substitution with them. The products between blocks are
// those of products.cl. Limited by the latency of one column after the other.
#define BLOCK 64

// In place: the factor F, with h = F' F, of a block [n, n], n at most BLOCK, and zeros above its diagonal; good[0] = 1
// where it is positive definite, else 0. One work-group, thread j has column j; row k of F needs only the later rows.
kernel __attribute__((reqd_work_group_size(BLOCK, 1, 1))) void factor_block(MATRIX(h), MATRIX(good), int n) {
  local float F[BLOCK * BLOCK];
  const int j = (int)get_local_id(0);
  global float *block = FLOATS(h);
  for (int i = 0; i < n; ++i) F[i * BLOCK + j] = j < n && j <= i ? block[i * h_at.stride + j] : 0;
  barrier(CLK_LOCAL_MEM_FENCE);
  int positive = 1;
  for (int k = n - 1; k >= 0; --k) {
    const float pivot = F[k * BLOCK + k];
    positive &= pivot > 0 && pivot < INFINITY;
    const float diagonal = sqrt(pivot);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (j <= k) F[k * BLOCK + j] = j == k ? diagonal : F[k * BLOCK + j] / diagonal;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int i = 0; i < k; ++i) {
      if (j <= i) F[i * BLOCK + j] = fma(-F[k * BLOCK + i], F[k * BLOCK + j], F[i * BLOCK + j]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  for (int e = j; e < n * n; e += BLOCK) block[e / n * h_at.stride + e % n] = F[e / n * BLOCK + e % n];
  if (j == 0) INTS(good)[0] = positive;
}

// In place, for each of `count` vectors x of n elements, n at most BLOCK: x becomes the y with y F = x, or y F' = x
// where `transposed`. A vector is a row of x, or a column where by_columns. A thread has a vector, in local memory.
kernel __attribute__((reqd_work_group_size(BLOCK, 1, 1))) void solve_block(MATRIX(factor), MATRIX(x), int n,
                                                                           long count, int transposed,
                                                                           int by_columns) {
  local float F[BLOCK * BLOCK], y[BLOCK * BLOCK];
  const int thread = (int)get_local_id(0);
  const long vector = get_global_id(0);
  for (int i = 0; i < n; ++i) {
    F[i * BLOCK + thread] = thread <= i && thread < n ? FLOATS(factor)[i * factor_at.stride + thread] : 0;
    y[i * BLOCK + thread] =
        vector < count ? FLOATS(x)[by_columns ? i * x_at.stride + vector : vector * x_at.stride + i] : 0;
  }
  barrier(CLK_LOCAL_MEM_FENCE);
  for (int step = 0; step < n; ++step) {
    const int k = transposed ? step : n - 1 - step;
    const float value = y[k * BLOCK + thread] / F[k * BLOCK + k];
    y[k * BLOCK + thread] = value;
    if (transposed) {
      for (int j = k + 1; j < n; ++j)
        y[j * BLOCK + thread] = fma(-value, F[j * BLOCK + k], y[j * BLOCK + thread]);
    } else {
      for (int j = 0; j < k; ++j) y[j * BLOCK + thread] = fma(-value, F[k * BLOCK + j], y[j * BLOCK + thread]);
    }
  }
  for (int i = 0; i < n; ++i) {
    if (vector < count)
      FLOATS(x)[by_columns ? i * x_at.stride + vector : vector * x_at.stride + i] = y[i * BLOCK + thread];
  }
}
