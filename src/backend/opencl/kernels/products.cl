// The matrix product behind linears, Hessians, feedback and factorizations: c = alpha a b + c or + bias.
//
// A work-group of SIDE x SIDE threads has a square tile of c, each thread EACH x EACH of its elements in registers, in
// squares of 4; pieces of a and b, 16 deep, pass through local memory as f32, and the next ones are read while these are
// multiplied. Sums are in f32, over k in order, so a row's results depend neither on the number of rows nor on the tile.
// Limited by arithmetic where tiles are large, by latency where there are few.
#pragma OPENCL FP_CONTRACT ON
#define TILE (SIDE * EACH)
#define THREADS (SIDE * SIDE)
#define DEPTH 16
#define PITCH (TILE + 4)                   // floats from row to row of a piece: against bank conflicts
#define READ (TILE * DEPTH / THREADS / 4)   // fours of neighbouring elements of a piece that a thread reads
#define TILE_FOURS (TILE / 4)
#define PIECE (DEPTH * PITCH / 4)          // fours of a piece
#define DEPTH_FOURS (DEPTH / 4)

typedef struct {
  long m, n, k;
  int a_by_columns;  // a(i, t) is at [t, i] of its matrix, else at [i, t]
  int b_by_columns;  // b(t, j) is at [t, j], else at [j, t]: weights are
  int lower;         // only c's lower triangle is computed
  int b_lower;       // b's matrix [j, t] counts as zeros for t > j
  float alpha;
  int adds;  // to what c holds, else to the bias
} Product;

// Rows are the side that a tile has. Where `kept` exists, columns t with kept[t] = 0 are zeros.
typedef struct {
  long first, rows, cols;
  int by_columns, lower;
  global const int *kept;
} Side;

// Four elements as they are in memory, so that nothing waits for them, and then as f32.
uint4 read_four(global const char *x, int dtype, long at) {
  const bool aligned = at % 4 == 0;
  if (dtype == F32) {
    global const uint *from = (global const uint *)x + at;
    return aligned ? *(global const uint4 *)from : vload4(0, from);
  }
  global const ushort *from = (global const ushort *)x + at;
  return (uint4)(aligned ? *(global const uint2 *)from : as_uint2(vload4(0, from)), 0, 0);
}
float4 widened(uint4 bits, int dtype) {
  if (dtype == F32) return as_float4(bits);
  if (dtype == BF16) return as_float4((uint4)(bits.x << 16, bits.x & 0xffff0000u, bits.y << 16, bits.y & 0xffff0000u));
  const uint2 halves = bits.xy;
  return vload_half4(0, (const half *)&halves);
}

// Elements (row, col) and the three after it in memory, or zeros for those that are none.
uint4 read_some(global const char *x, Place x_at, Side s, long row, long col, long at) {
  uint bits[4];
  for (int e = 0; e < 4; ++e) {
    const long r = s.by_columns ? row + e : row, c = s.by_columns ? col : col + e;
    const bool there = r < s.rows && c < s.cols && (!s.lower || c <= r) && (s.kept == 0 || s.kept[c] != 0);
    bits[e] = !there ? 0 : x_at.dtype == F32 ? ((global const uint *)x)[at + e] : ((global const ushort *)x)[at + e];
  }
  if (x_at.dtype == F32) return vload4(0, bits);
  return (uint4)(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16, 0, 0);
}

// A thread's fours of the elements (first + i, step + t) of a piece: neighbours in memory, of rows or of columns.
void read_piece(uint4 *fours, global const char *x, Place x_at, Side s, long step) {
  const int thread = (int)(get_local_id(1) * SIDE + get_local_id(0));
  for (int e = 0; e < READ; ++e) {
    const int four = thread + e * THREADS;
    const long row = s.first + (s.by_columns ? four % TILE_FOURS * 4 : four / DEPTH_FOURS);
    const long col = step + (s.by_columns ? four / TILE_FOURS : four % DEPTH_FOURS * 4);
    const long at = x_at.offset + (s.by_columns ? col * x_at.stride + row : row * x_at.stride + col);
    const long last_row = s.by_columns ? row + 3 : row, last_col = s.by_columns ? col : col + 3;
    const bool whole = last_row < s.rows && last_col < s.cols && (!s.lower || last_col <= row) &&
                       (s.kept == 0 || (s.by_columns && s.kept[col] != 0));
    fours[e] = whole ? read_four(x, x_at.dtype, at) : read_some(x, x_at, s, row, col, at);
  }
}

// piece[t, i] = the thread's elements.
void write_piece(local float4 *piece, const uint4 *fours, int dtype, int by_columns) {
  const int thread = (int)(get_local_id(1) * SIDE + get_local_id(0));
  for (int e = 0; e < READ; ++e) {
    const int four = thread + e * THREADS;
    const float4 values = widened(fours[e], dtype);
    if (by_columns) {
      piece[four / TILE_FOURS * (PITCH / 4) + four % TILE_FOURS] = values;
    } else {
      local float *to = (local float *)piece + four % DEPTH_FOURS * 4 * PITCH + four / DEPTH_FOURS;
      to[0] = values.s0;
      to[PITCH] = values.s1;
      to[2 * PITCH] = values.s2;
      to[3 * PITCH] = values.s3;
    }
  }
}

// The place in a tile of element i of the thread that is the `thread`-th of its side.
int place_of(int thread, int i) { return i / 4 * 4 * SIDE + 4 * thread + i % 4; }

kernel FEW_LANES __attribute__((reqd_work_group_size(SIDE, SIDE, 1))) void multiply(MATRIX(a), MATRIX(b), MATRIX(bias),
                                                                          MATRIX(kept), MATRIX(c), Product p) {
  local float4 a_piece[PIECE], b_piece[PIECE];
  const int col = (int)get_local_id(0), row = (int)get_local_id(1);
  const long first_row = (long)get_group_id(1) * TILE, first_col = (long)get_group_id(0) * TILE;
  const int above = p.lower && first_col > first_row;  // the diagonal: nothing to do
  const long end = above ? 0 : p.b_lower ? min(p.k, first_col + TILE) : p.k;
  global const int *kept_columns = kept_at.exists ? INTS(kept) : 0;
  const Side a_side = {first_row, p.m, p.k, p.a_by_columns, 0, kept_columns};
  const Side b_side = {first_col, p.n, p.k, p.b_by_columns, p.b_lower, kept_columns};
  float4 sums[EACH][EACH / 4];
  for (int i = 0; i < EACH; ++i) {
    for (int j = 0; j < EACH / 4; ++j) sums[i][j] = 0;
  }
  uint4 a_next[READ], b_next[READ];
  if (end > 0) {
    read_piece(a_next, a, a_at, a_side, 0);
    read_piece(b_next, b, b_at, b_side, 0);
  }
  for (long step = 0; step < end; step += DEPTH) {
    write_piece(a_piece, a_next, a_at.dtype, p.a_by_columns);
    write_piece(b_piece, b_next, b_at.dtype, p.b_by_columns);
    barrier(CLK_LOCAL_MEM_FENCE);
    if (step + DEPTH < end) {
      read_piece(a_next, a, a_at, a_side, step + DEPTH);
      read_piece(b_next, b, b_at, b_side, step + DEPTH);
    }
#pragma unroll
    for (int t = 0; t < DEPTH; ++t) {
      float4 from_b[EACH / 4];
      for (int j = 0; j < EACH / 4; ++j) from_b[j] = b_piece[t * (PITCH / 4) + j * SIDE + col];
      for (int i = 0; i < EACH / 4; ++i) {
        const float4 from_a = a_piece[t * (PITCH / 4) + i * SIDE + row];
        for (int j = 0; j < EACH / 4; ++j) {
          sums[4 * i][j] += from_a.s0 * from_b[j];
          sums[4 * i + 1][j] += from_a.s1 * from_b[j];
          sums[4 * i + 2][j] += from_a.s2 * from_b[j];
          sums[4 * i + 3][j] += from_a.s3 * from_b[j];
        }
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  for (int i = 0; i < EACH; ++i) {
    const long r = first_row + place_of(row, i);
    float values[EACH];
    for (int j = 0; j < EACH / 4; ++j) vstore4(sums[i][j], j, values);
    for (int j = 0; j < EACH; ++j) {
      const long column = first_col + place_of(col, j);
      if (above || r >= p.m || column >= p.n || (p.lower && column > r)) continue;
      const float before = p.adds ? GET(c, r, column) : bias_at.exists ? GET(bias, 0, column) : 0;
      SET(c, r, column, p.alpha * values[j] + before);
    }
  }
}
