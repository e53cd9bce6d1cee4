// Everything the quantizer computes: calls are matrix-sized, so a virtual call costs nothing. Pure virtual, so the
// compiler proves each implementation complete. Rules for all ops:
//   * inputs come first and are const, the output comes last; an op that updates its last argument says so;
//   * outputs never alias inputs; strides are free; sizes of zero are allowed;
//   * float matrices may be f32, f16 or bf16, each argument on its own, unless the op says otherwise; sums are in f32
//   or better;
//   * a result rounded to its dtype is rounded to nearest, ties to even.
#pragma once

#include <cstdint>
#include <span>

#include "tensor/matrix.h"

namespace gptq {

// clamped_swiglu (gpt_oss) is a gate whose two sides are bounded: with g = min(gate, 7), it gives
// g / (1 + exp(-1.702 g)) (clamp(up, -7, 7) + 1).
enum class Activation : uint8_t { silu, gelu, gelu_tanh, relu, relu_squared, clamped_swiglu };

// Which elements of a head are rotated together: i with i + half (GPT-NeoX), or 2 i with 2 i + 1 (GPT-J).
enum class RotaryOrder : uint8_t { halves, interleaved };

// How cap() bounds values: clamp(x, -bound, bound), or bound tanh(x / bound).
enum class Cap : uint8_t { hard, soft };

// Rows of one matrix that are several sequences after each other: sequence s is rows [offsets[s], offsets[s + 1]).
using SequenceOffsets = std::span<const int64_t>;

struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;  // heads is a multiple of kv_heads
  float scale = 1;                                // scores are multiplied by it before the softmax
  float soft_cap = 0;                             // scaled scores s become soft_cap tanh(s / soft_cap); 0: they stay
  int64_t window = 0;      // a query sees its own and the window - 1 keys before it; 0: all before it
  int64_t chunk = 0;       // and of those the keys of its own chunk of so many positions; 0: one chunk is all
  ConstMatrixView slopes;  // [1, heads] f32, or empty: scores get slope (key position - query position), as in ALiBi
  ConstMatrixView sinks;   // [1, heads] f32, or empty: a score that joins each softmax and has no value
};

// How find_grid chooses a scale. Candidate i of a group is the widest grid shrunk by p = 1 - i * shrink_step, and the
// one with the least sum_k importance_k |dequantized_k - w_k|^norm wins; the first of equals. One candidate is min-max.
struct GridSearch {
  int bits = 4;
  bool symmetric = true;
  int candidates = 1;
  float shrink_step = 0;
  float norm = 2;
  // Symmetric grids only: a scale may be negative, so that code 0, which reaches furthest, lies on the side of the
  // largest weight. Where there are several candidates, each is also tried with the other sign, 1.05 times as wide.
  bool signed_scales = false;
  // Asymmetric grids only: each candidate is tried with its zero, then with the next lower and the next higher one.
  bool search_zeros = false;
};

// Codes q in [0, 2^bits) stand for scales[r, g] * (q - zeros[r, g]); scales are f32 holding fp16 values, zeros are u8.
struct Grid {
  ConstMatrixView scales, zeros;  // [rows, groups]
  int bits = 4;
};

// Columns that one call of quantize_columns() solves.
constexpr int64_t kMostColumns = 128;

class Ops {
 public:
  virtual ~Ops() = default;

  // y[i, :] = table[ids[i], :].   table [n, width], y [ids.size(), width]; ids lie in [0, n).
  virtual void gather_rows(ConstMatrixView table, std::span<const int32_t> ids, MatrixView y) = 0;

  // y[:, i] = x[:, ids[i]].   x [rows, n], y [rows, ids.size()]; x and y have one dtype, any.
  virtual void gather_columns(ConstMatrixView x, std::span<const int32_t> ids, MatrixView y) = 0;

  // y = x in y's dtype.   x, y [rows, cols] float
  virtual void convert(ConstMatrixView x, MatrixView y) = 0;

  // y = 0.   y [rows, cols] of any dtype
  virtual void clear(MatrixView y) = 0;

  // y += factor x.   x, y [rows, cols]
  virtual void add(ConstMatrixView x, float factor, MatrixView y) = 0;

  // y = x / sqrt(mean(x^2) + eps) * weight over each group of `width` columns of each row; group g has row g mod n of
  // weight.   x, y [tokens, groups * width], weight [n, width]
  virtual void rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y) = 0;

  // y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias, over the same groups as rms_norm().
  // x, y [tokens, groups * width], weight [n, width], bias [n, width] or empty
  virtual void layer_norm(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, float eps, MatrixView y) = 0;

  // y = x w' + bias.   x [m, k], w [n, k], bias [1, n] or empty, y [m, n]. Products of f32 inputs keep f32 accuracy.
  virtual void linear(ConstMatrixView x, ConstMatrixView w, ConstMatrixView bias, MatrixView y) = 0;

  // Rotates each head's first 2 * cos.cols elements, in pairs; updates x.
  // cos, sin [positions, rotary_dim / 2] f32; x [tokens, heads * head_dim]; a row's position counts from its sequence's
  // start.
  virtual void rope(ConstMatrixView cos, ConstMatrixView sin, SequenceOffsets offsets, RotaryOrder order,
                    int64_t head_dim, MatrixView x) = 0;

  // Causal grouped-query attention inside each sequence: y = softmax(scale q k') v, head by head, sums in f32; the
  // probabilities may be rounded to v's dtype on their way to the second product. AttentionShape says what else
  // happens to scores, in the order of its members.
  // q, y [tokens, heads * head_dim]; k, v [tokens, kv_heads * head_dim]
  virtual void attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, SequenceOffsets offsets,
                         const AttentionShape& shape, MatrixView y) = 0;

  // y = activation(gate) * up, or activation(gate) where up is empty.   all [tokens, width]
  virtual void gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y) = 0;

  // Updates x, bounding each element.   x [rows, cols]
  virtual void cap(Cap kind, float bound, MatrixView x) = 0;

  // y[ids[i], :] += weights[i] x[i, :].   x [ids.size(), width], y [n, width]; ids are distinct and lie in [0, n)
  virtual void add_rows(ConstMatrixView x, std::span<const int32_t> ids, std::span<const float> weights,
                        MatrixView y) = 0;

  // Updates the lower triangle of h: h += x' x, products exact or f32, sums in f32; what is above it is undefined
  // afterwards.
  // Rows of x that hold NaN or infinity add nothing and are counted: dropped[0, 0] += their number.
  // x [tokens, n], h [n, n] f32, dropped [1, 1] i32
  virtual void add_gram(ConstMatrixView x, MatrixView h, MatrixView dropped) = 0;

  // c += x' (original - x), the differences rounded to x's dtype, products exact or f32, sums in f32. Rows that hold
  // NaN or infinity in either add nothing.   x, original [tokens, n] of one dtype, c [n, n] f32
  virtual void add_cross_gram(ConstMatrixView x, ConstMatrixView original, MatrixView c) = 0;

  // h[i, j] = h[j, i] for j > i.   h [n, n] f32
  virtual void mirror(MatrixView h) = 0;

  // y[i, j] = h[order[i], order[j]] for j <= i, h symmetric with its lower triangle stored, plus `damp` on the
  // diagonal. y's upper triangle is zero.   h, y [n, n] f32; order is a permutation of [0, n)
  virtual void permute_symmetric(ConstMatrixView h, std::span<const int32_t> order, float damp, MatrixView y) = 0;

  // In place: x becomes the y with y F = x, or y F' = x where `transposed`.
  // factor [n, n] f32, of which the lower triangle F is read; x [rows, n] f32
  virtual void solve_triangle(ConstMatrixView factor, bool transposed, MatrixView x) = 0;

  // In place: x_r becomes the y with (A_r + ridge mean(diag A_r) I) y = x_r for each row r, computed in f64. Where that
  // matrix is not positive definite, x_r becomes 0.
  // a [rows, n * n] f32: the lower triangle of row r, as n rows of n, is that of the symmetric A_r; x [rows, n] f32
  virtual void solve_systems(ConstMatrixView a, float ridge, MatrixView x) = 0;

  // products[r, g] = sum of x_rk y_rk over the columns k of group g, in f32.
  // x, y [rows, groups * group_size] f32; products [rows, groups] f32
  virtual void group_products(ConstMatrixView x, ConstMatrixView y, int64_t group_size, MatrixView products) = 0;

  // norms[r, 0] += sum_k x[r, k]^2.   x [rows, n], norms [rows, 1] f32
  virtual void add_row_norms(ConstMatrixView x, MatrixView norms) = 0;

  // norms[r, 0] += sum_k (w R)_rk^2 with R = factor', R upper triangular: the output energy tr(W H W') of each row. A
  // statistic: w and R may be rounded to bf16.
  // w [rows, n] f32; factor [n, n] f32, of which the lower triangle is read; norms [rows, 1] f32
  virtual void add_product_norms(ConstMatrixView w, ConstMatrixView factor, MatrixView norms) = 0;

  // In place: from the lower triangle of a positive definite h to the lower triangular F with h = F' F, so R = F' is
  // the upper triangular factor of h = R R', and inv(R) is the GPTQ paper's cholesky(inverse(h), upper). Returns false,
  // with h undefined, where h is not positive definite.   h [n, n] f32, upper triangle zero before and after
  virtual bool factor(MatrixView h) = 0;

  // The scale and zero of each row and group of w, scales rounded to fp16 (magnitude at least 2^-24, at most 65504).
  // Symmetric: scale = p 2 max|w| / (2^bits - 1), zero = 2^(bits-1); signed: scale = -p e / 2^(bits-1), e the weight of
  // largest magnitude (the negative one of two), and then +1.05 p e / 2^(bits-1).
  // Asymmetric: [lo, hi] = p [min(w, 0), max(w, 0)], scale = (hi - lo) / (2^bits - 1), zero = round(-lo / scale).
  // p runs over the candidates of `search`. A group of zeros is treated as if it held -1 and 1.
  // w [rows, cols] f32, cols a multiple of group_size; importance [1, cols] f32, or empty for all ones;
  // scales [rows, cols / group_size] f32, zeros [same] u8
  virtual void find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
                         MatrixView scales, MatrixView zeros) = 0;

  // GPTQ's column loop over one block of columns, in the form without an inverse. In order k = 0 .. n-1, for every row:
  //   t = w_k + a_k / F_kk;  code_k = clamp(round(t / scale) + zero);  e_k = w_k - dequantized_k;  a_j += e_k F_jk for
  //   j > k
  // where a starts as `feedback`. Ties round to even. loss[r] += sum_k (F_kk (t - dequantized_k))^2.
  // w, feedback, errors [rows, n] f32, n at most kMostColumns; factor [n, n] f32 (a diagonal block of F); groups[k]:
  // column of the grid that k uses; codes [rows, n] u8; loss [rows, 1] f32
  virtual void quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor,
                                std::span<const int32_t> groups, const Grid& grid, MatrixView codes, MatrixView errors,
                                MatrixView loss) = 0;

  // codes = clamp(round(w / scale) + zero).   w, codes [rows, cols]; groups[k] is the grid column of k; w f32
  virtual void round_columns(ConstMatrixView w, std::span<const int32_t> groups, const Grid& grid,
                             MatrixView codes) = 0;

  // w = scale * (code - zero), rounded to w's dtype.   codes, w [rows, cols]; groups[k] is the grid column of k
  virtual void dequantize(ConstMatrixView codes, std::span<const int32_t> groups, const Grid& grid, MatrixView w) = 0;

  // Packs each row's codes as a dense stream of bits (code i at bit i * bits, low bits first, in 32-bit words) and
  // stores the stream of row r in column r: the qweight of the format.
  // codes [rows, cols] u8, below 2^bits, bits 2, 3, 4 or 8; words [cols * bits / 32, rows] i32; cols * bits is a
  // multiple of 32
  virtual void pack(ConstMatrixView codes, int bits, MatrixView words) = 0;

  // losses[i] = log(sum(exp(logits[i, :]))) - logits[i, targets[i]].   logits [n, vocabulary], losses [n, 1] f32
  virtual void token_losses(ConstMatrixView logits, std::span<const int32_t> targets, MatrixView losses) = 0;

  // For each row: divergence = KL(softmax(p) || softmax(q)), same_top = 1 where both have their (first) maximum in one
  // place. p, q [n, vocabulary]; divergence, same_top [n, 1] f32
  virtual void compare_logits(ConstMatrixView p, ConstMatrixView q, MatrixView divergence, MatrixView same_top) = 0;
};

// The oracle: plain loops on host memory, sums in double.
Ops& reference();

}  // namespace gptq
