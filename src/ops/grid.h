// Quantization grids: how they are found, and values on them.
#pragma once

#include "ops/op.h"

namespace gptq {

// Codes q in [0, 2^bits) stand for scales[r, g] * (q - zeros[r, g]); scales are f32 holding fp16 values, zeros are u8.
struct Grid {
  ConstMatrixView scales, zeros;  // [rows, groups]
  int bits = 4;
};

// How FindGrid chooses a scale. Candidate i of a group is the widest grid times p = 1 - i * shrink_step. The candidate
// with the least sum_k importance_k |dequantized_k - w_k|^norm is taken, the first of equals. One candidate is min-max.
struct GridSearch {
  int bits = 4;
  bool symmetric = true;
  int candidates = 1;
  float shrink_step = 0;
  float norm = 2;
  // Symmetric grids only: a scale may be negative, so that code 0, which reaches furthest, is on the side of the
  // largest weight. With several candidates, each is also tried with the other sign, 1.05 times as wide.
  bool signed_scales = false;
  // Asymmetric grids only: each candidate is tried with its zero, then with the next lower and the next higher one.
  bool search_zeros = false;
};

namespace ops {

// A grid of equal steps for a trial.
inline Grid trial_grid(TrialOperands& t, int64_t rows) {
  constexpr int64_t kGroups = 4;
  return {t.filled(0.05F, rows, kGroups), t.zeros(DType::u8, rows, kGroups), 4};
}

// The scale and zero of each row and group of w, scales rounded to fp16 (magnitude at least 2^-24, at most 65504).
// Symmetric: scale = p 2 max|w| / (2^bits - 1), zero = 2^(bits-1); signed: scale = -p e / 2^(bits-1), e the weight of
// largest magnitude (the negative one of two), and then +1.05 p e / 2^(bits-1).
// Asymmetric: [lo, hi] = p [min(w, 0), max(w, 0)], scale = (hi - lo) / (2^bits - 1), zero = round(-lo / scale).
// p runs over the candidates of `search`. A group of zeros is treated as if it held -1 and 1.
// w [rows, cols] f32, cols a multiple of group_size; importance [1, cols] f32, or empty for all ones;
// scales [rows, cols / group_size] f32, zeros [same] u8
struct FindGrid {
  static constexpr const char* kName = "find_grid";
  ConstMatrixView w, importance;
  int64_t group_size = 0;
  GridSearch search;
  MatrixView scales, zeros;

  auto reads() { return std::array{&w, &importance}; }
  auto writes() { return std::array{&scales, &zeros}; }
  // Rows, columns, group size, grids that are tried.
  OpSizes sizes() const {
    const int64_t each = search.signed_scales ? 2 : search.search_zeros ? 3 : 1;
    return {w.rows, w.cols, group_size, search.candidates * each};
  }
  DType dtype() const { return w.dtype; }
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[1]) * as_double(s[3]); }
  static OpSizes trial_sizes(OpSizes s, const TrialLimits& limits) {
    halve<FindGrid>(s, 0, 16, 8 * limits.elements);
    return s;
  }
  static FindGrid trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.random(DType::f32, s[0], s[1]),
            t.random(DType::f32, 1, s[1]),
            s[2],
            {.candidates = static_cast<int>(s[3]), .shrink_step = 0.8F / static_cast<float>(s[3])},
            t.undefined(DType::f32, s[0], s[1] / s[2]),
            t.undefined(DType::u8, s[0], s[1] / s[2])};
  }
};
void reference(const FindGrid& op);

// codes = clamp(round(w / scale) + zero).   w [rows, cols] f32, codes [rows, cols] u8; groups[k] is the grid column of
// k
struct RoundColumns {
  static constexpr const char* kName = "round_columns";
  ConstMatrixView w;
  std::span<const int32_t> groups;
  Grid grid;
  MatrixView codes;

  auto reads() { return std::array{&w, &grid.scales, &grid.zeros}; }
  auto writes() { return std::array{&codes}; }
  OpSizes sizes() const { return {w.rows, w.cols}; }
  DType dtype() const { return w.dtype; }
  static RoundColumns trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.random(DType::f32, s[0], s[1]), t.ids(s[1], 0), trial_grid(t, s[0]), t.undefined(DType::u8, s[0], s[1])};
  }
};
void reference(const RoundColumns& op);

// w = scale * (code - zero), rounded to w's dtype.   codes [rows, cols] u8, w [rows, cols]; groups[k] is the grid
// column of k
struct Dequantize {
  static constexpr const char* kName = "dequantize";
  ConstMatrixView codes;
  std::span<const int32_t> groups;
  Grid grid;
  MatrixView w;

  auto reads() { return std::array{&codes, &grid.scales, &grid.zeros}; }
  auto writes() { return std::array{&w}; }
  OpSizes sizes() const { return {w.rows, w.cols}; }
  DType dtype() const { return w.dtype; }
  static Dequantize trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.zeros(DType::u8, s[0], s[1]), t.ids(s[1], 0), trial_grid(t, s[0]), t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const Dequantize& op);

using GridOps = OpList<FindGrid, RoundColumns, Dequantize>;

}  // namespace ops
}  // namespace gptq
