// GPTQ's column loop: a thread has a row. Its feedback is in local memory; the factor is read as its transpose, so that
// an error meets the neighbouring later columns eight at a time, the same ones in all threads. Limited by local memory:
// a read and a write for each multiply-add.
#define ROWS 32
#define COLUMNS 128

// turned[k, j] = factor[j, k] for j > k, else 0; diagonal[k] = factor[k, k].   factor [n, n], turned [n, COLUMNS],
// diagonal [1, n]
kernel void turn_factor(MATRIX(factor), MATRIX(turned), MATRIX(diagonal), int n) {
  const int j = (int)get_global_id(0), k = (int)get_global_id(1);
  if (j >= COLUMNS || k >= n) return;
  global const float *F = FLOATS(factor);
  FLOATS(turned)[k * COLUMNS + j] = j > k && j < n ? F[j * factor_at.stride + k] : 0;
  if (j == k) FLOATS(diagonal)[k] = F[k * factor_at.stride + k];
}

kernel __attribute__((reqd_work_group_size(ROWS, 1, 1))) void quantize_columns(
    MATRIX(w), MATRIX(feedback), MATRIX(turned), MATRIX(diagonals), MATRIX(groups), MATRIX(scales), MATRIX(zeros),
    float top, MATRIX(codes), MATRIX(errors), MATRIX(loss), long rows, int n) {
  local float sums[ROWS * (COLUMNS + 8)];  // 8 more, so that the banks of neighbours differ
  const long row = get_global_id(0);
  local float *own = sums + get_local_id(0) * (COLUMNS + 8);
  if (row >= rows) return;
  for (int j = 0; j < COLUMNS; ++j) own[j] = j < n ? FLOATS(feedback)[row * feedback_at.stride + j] : 0;
  float total = 0;
  for (int k = 0; k < n; ++k) {
    const int group = INTS(groups)[k];
    const float scale = FLOATS(scales)[row * scales_at.stride + group],
                zero = (float)BYTES(zeros)[row * zeros_at.stride + group];
    const float weight = FLOATS(w)[row * w_at.stride + k], diagonal = FLOATS(diagonals)[k];
    const float target = weight + divided(own[k], diagonal);
    const float code = fmin(fmax(rint(divided(target, scale)) + zero, 0.0f), top);
    const float dequantized = scale * (code - zero), error = weight - dequantized;
    const float miss = diagonal * (target - dequantized);
    total = fma(miss, miss, total);
    BYTES(codes)[row * codes_at.stride + k] = (uchar)code;
    FLOATS(errors)[row * errors_at.stride + k] = error;
    for (int piece = (k + 1) / 8; piece * 8 < n; ++piece) {
      const float8 later = vload8(piece, FLOATS(turned) + k * COLUMNS);
      vstore8(fma((float8)(error), later, vload8(piece, own)), piece, own);
    }
  }
  FLOATS(loss)[row * loss_at.stride] += total;
}
