// The product of products.cl for a and b of the same 16-bit type, by the matrix functions of Intel's GPUs
// (cl_intel_subgroup_matrix_multiply_accumulate): each multiplies 8 rows by 16 by LANES columns, with sums in f32.
//
// A work-group of 64 threads has a tile of 64 x 64 elements of c, a sub-group of LANES threads 32 x 2 LANES of them.
// Pieces of a and b, 16 deep, pass through local memory as pairs (t, t + 1) of elements, which is what the functions
// take. LANES is 8 on Arc A, 16 on later ones. Limited by the loads of the pieces.
//
// ELEMENT is BF16 or F16. With EMULATED the functions are made of broadcasts in a sub-group, to test all else on devices
// without matrix units.
#pragma OPENCL EXTENSION cl_intel_subgroups : enable
#define TILE 64
#define DEPTH 16
#define PAIRS (DEPTH / 2)
#define THREADS 64
#define HIGH 32           // rows and columns of a sub-group
#define WIDE (2 * LANES)

typedef struct {  // as in products.cl
  long m, n, k;
  int a_by_columns, b_by_columns, lower, b_lower;
  float alpha;
  int adds;
} Product;

// A lane's part of 8 rows of a: element k = lane of each, or elements 2 lane and 2 lane + 1.
#if LANES == 16
typedef short8 Rows;
#else
typedef int8 Rows;
#endif

#ifdef EMULATED
float element_of(uint bits) {
  const ushort element = (ushort)(bits & 0xffffu);
  if (ELEMENT == BF16) return of_bf16(element);
  return vload_half(0, (private const half *)&element);
}
float row_product(uint row, int8 b, float sum) {
  const uint pairs[PAIRS] = {as_uint(b.s0), as_uint(b.s1), as_uint(b.s2), as_uint(b.s3),
                             as_uint(b.s4), as_uint(b.s5), as_uint(b.s6), as_uint(b.s7)};
  for (int t = 0; t < DEPTH; ++t) {
    const uint word = intel_sub_group_shuffle(row, (uint)(LANES == 16 ? t : t / 2));
    const int shift = LANES == 16 || t % 2 == 0 ? 0 : 16;
    sum = fma(element_of(word >> shift), element_of(pairs[t / 2] >> (t % 2 * 16)), sum);
  }
  return sum;
}
float8 multiply_add(Rows a, int8 b, float8 sums) {
  return (float8)(row_product((uint)a.s0, b, sums.s0), row_product((uint)a.s1, b, sums.s1),
                  row_product((uint)a.s2, b, sums.s2), row_product((uint)a.s3, b, sums.s3),
                  row_product((uint)a.s4, b, sums.s4), row_product((uint)a.s5, b, sums.s5),
                  row_product((uint)a.s6, b, sums.s6), row_product((uint)a.s7, b, sums.s7));
}
#else
#ifdef DECLARED  // by this file, for compilers that know the functions and not their names
float8 __attribute__((overloadable)) intel_sub_group_bf16_bf16_matrix_mad_k16(Rows a, int8 b, float8 sums);
float8 __attribute__((overloadable)) intel_sub_group_f16_f16_matrix_mad_k16(Rows a, int8 b, float8 sums);
#endif
float8 multiply_add(Rows a, int8 b, float8 sums) {
#if ELEMENT == BF16
  return intel_sub_group_bf16_bf16_matrix_mad_k16(a, b, sums);
#else
  return intel_sub_group_f16_f16_matrix_mad_k16(a, b, sums);
#endif
}
#endif

// Elements (i, t) and (i, t + 1) of a matrix whose rows are a tile's side, as one word; zeros outside and where a term
// is left out.
uint load_pair(global const ushort *x, Place x_at, long i, long rows, long t, long cols, int by_columns,
               global const int *kept) {
  if (i >= rows) return 0;
  const long at = x_at.offset + (by_columns ? t * x_at.stride + i : i * x_at.stride + t);
  const long next = at + (by_columns ? x_at.stride : 1);
  const uint first = t < cols && (kept == 0 || kept[t] != 0) ? x[at] : 0,
             second = t + 1 < cols && (kept == 0 || kept[t + 1] != 0) ? x[next] : 0;
  return first | second << 16;
}

kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) __attribute__((intel_reqd_sub_group_size(LANES))) void
multiply_matrix(MATRIX(a), MATRIX(b), MATRIX(bias), MATRIX(kept), MATRIX(c), Product p) {
  local uint a_pairs[TILE * PAIRS], b_pairs[PAIRS * TILE];
  const int thread = (int)get_local_id(0), lane = thread % LANES, group = thread / LANES;
  const int own_row = group % (TILE / HIGH) * HIGH, own_col = group / (TILE / HIGH) * WIDE;
  const long first_row = (long)get_group_id(1) * TILE, first_col = (long)get_group_id(0) * TILE;
  const int above = p.lower && first_col > first_row;  // the diagonal: nothing to do
  const long end = above ? 0 : p.k;
  global const int *kept_terms = kept_at.exists ? INTS(kept) : 0;
  float8 sums[HIGH / 8 * 2];
  for (int i = 0; i < HIGH / 8 * 2; ++i) sums[i] = 0;
  for (long step = 0; step < end; step += DEPTH) {
    for (int e = thread; e < TILE * PAIRS; e += THREADS) {
      // Neighbouring threads read neighbouring elements.
      const int i = p.a_by_columns ? e % TILE : e / PAIRS, t = p.a_by_columns ? e / TILE : e % PAIRS;
      a_pairs[i * PAIRS + t] = load_pair((global const ushort *)a, a_at, first_row + i, p.m, step + 2 * t, p.k,
                                         p.a_by_columns, kept_terms);
      const int j = p.b_by_columns ? e % TILE : e / PAIRS, u = p.b_by_columns ? e / TILE : e % PAIRS;
      b_pairs[u * TILE + j] = load_pair((global const ushort *)b, b_at, first_col + j, p.n, step + 2 * u, p.k,
                                        p.b_by_columns, kept_terms);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    int8 of_b[2];
    for (int half_width = 0; half_width < 2; ++half_width) {
      local const uint *from = b_pairs + own_col + half_width * LANES + lane;
      of_b[half_width] = (int8)(from[0], from[TILE], from[2 * TILE], from[3 * TILE], from[4 * TILE], from[5 * TILE],
                                from[6 * TILE], from[7 * TILE]);
    }
#pragma unroll
    for (int i = 0; i < HIGH / 8; ++i) {
#if LANES == 16
      local const short *from = (local const short *)(a_pairs + (own_row + i * 8) * PAIRS) + lane;
      const int stride = DEPTH;
#else
      local const int *from = (local const int *)(a_pairs + (own_row + i * 8) * PAIRS) + lane;
      const int stride = PAIRS;
#endif
      const Rows of_a = (Rows)(from[0], from[stride], from[2 * stride], from[3 * stride], from[4 * stride],
                               from[5 * stride], from[6 * stride], from[7 * stride]);
      sums[2 * i] = multiply_add(of_a, of_b[0], sums[2 * i]);
      sums[2 * i + 1] = multiply_add(of_a, of_b[1], sums[2 * i + 1]);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  for (int i = 0; i < HIGH / 8 * 2; ++i) {
    float values[8];
    vstore8(sums[i], 0, values);
    const long column = first_col + own_col + i % 2 * LANES + lane;
    for (int j = 0; j < 8; ++j) {
      const long r = first_row + own_row + i / 2 * 8 + j;
      if (above || r >= p.m || column >= p.n || (p.lower && column > r)) continue;
      const float before = p.adds ? GET(c, r, column) : bias_at.exists ? GET(bias, 0, column) : 0;
      SET(c, r, column, p.alpha * values[j] + before);
    }
  }
}
