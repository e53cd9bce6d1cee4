// The matrix product behind linears, Hessians, feedback and factorizations: c = alpha a b + c or + bias.
//
// A work-group of 8 x 8 threads has a tile of 64 x 64 elements of c, each thread 8 x 8 of them in registers; pieces of
// a and b, 16 deep, pass through local memory as f32. Sums are in f32, over k in order, so a row's results do not depend
// on the number of rows. Limited by arithmetic: 64 multiply-adds for two reads of 8 elements.
#pragma OPENCL FP_CONTRACT ON
#define TILE 64
#define DEPTH 16
#define EACH 8

typedef struct {
  long m, n, k;
  int a_by_columns;  // a(i, t) is at [t, i] of its matrix, else at [i, t]
  int b_by_columns;  // b(t, j) is at [t, j], else at [j, t]: weights are
  int lower;         // only c's lower triangle is computed
  int b_lower;       // b's matrix [j, t] counts as zeros for t > j
  float alpha;
  int adds;  // to what c holds, else to the bias
} Product;

// piece[t, i] = element (first + i, step + t), where rows are the side that a tile has, or zero outside. Where `kept`
// exists, columns t with kept[t] = 0 are zeros.
#define LOAD(ELEMENT)                                                                             \
  for (int e = thread; e < TILE * DEPTH; e += EACH * EACH) {                                      \
    const int i = by_columns ? e % TILE : e / DEPTH, t = by_columns ? e / TILE : e % DEPTH;       \
    const long row = first + i, col = step + t;                                                   \
    float value = 0;                                                                              \
    if (row < rows && col < cols && (!lower || col <= row) && (kept == 0 || kept[col] != 0)) {    \
      const long at = x_at.offset + (by_columns ? col * x_at.stride + row : row * x_at.stride + col); \
      value = ELEMENT;                                                                            \
    }                                                                                             \
    piece[t * TILE + i] = value;                                                                  \
  }
void load_piece(local float *piece, global const char *x, Place x_at, long first, long rows, long step, long cols,
                int by_columns, int lower, global const int *kept) {
  const int thread = (int)(get_local_id(1) * EACH + get_local_id(0));
  if (x_at.dtype == F32) {
    LOAD(((global const float *)x)[at])
  } else if (x_at.dtype == F16) {
    LOAD(vload_half(at, (global const half *)x))
  } else {
    LOAD(of_bf16(((global const ushort *)x)[at]))
  }
}

kernel __attribute__((reqd_work_group_size(EACH, EACH, 1))) void multiply(MATRIX(a), MATRIX(b), MATRIX(bias),
                                                                          MATRIX(kept), MATRIX(c), Product p) {
  local float a_piece[DEPTH * TILE], b_piece[DEPTH * TILE];
  const int col = (int)get_local_id(0), row = (int)get_local_id(1);
  const long first_row = (long)get_group_id(1) * TILE, first_col = (long)get_group_id(0) * TILE;
  const int above = p.lower && first_col > first_row;  // the diagonal: nothing to do
  const long end = above ? 0 : p.b_lower ? min(p.k, first_col + TILE) : p.k;
  global const int *kept_columns = kept_at.exists ? INTS(kept) : 0;
  float8 sums[EACH];
  for (int i = 0; i < EACH; ++i) sums[i] = 0;
  for (long step = 0; step < end; step += DEPTH) {
    load_piece(a_piece, a, a_at, first_row, p.m, step, p.k, p.a_by_columns, 0, kept_columns);
    load_piece(b_piece, b, b_at, first_col, p.n, step, p.k, p.b_by_columns, p.b_lower, kept_columns);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int t = 0; t < DEPTH; ++t) {
      const float8 from_a = vload8(row, a_piece + t * TILE), from_b = vload8(col, b_piece + t * TILE);
      sums[0] += from_a.s0 * from_b;
      sums[1] += from_a.s1 * from_b;
      sums[2] += from_a.s2 * from_b;
      sums[3] += from_a.s3 * from_b;
      sums[4] += from_a.s4 * from_b;
      sums[5] += from_a.s5 * from_b;
      sums[6] += from_a.s6 * from_b;
      sums[7] += from_a.s7 * from_b;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  for (int i = 0; i < EACH; ++i) {
    const long r = first_row + row * EACH + i;
    float values[EACH];
    vstore8(sums[i], 0, values);
    for (int j = 0; j < EACH; ++j) {
      const long column = first_col + col * EACH + j;
      if (above || r >= p.m || column >= p.n || (p.lower && column > r)) continue;
      const float before = p.adds ? GET(c, r, column) : bias_at.exists ? GET(bias, 0, column) : 0;
      SET(c, r, column, p.alpha * values[j] + before);
    }
  }
}
