// GPTQ's column loop.
#pragma once

#include "ops/grid.h"
#include "ops/op.h"

namespace gptq {

// Columns that one QuantizeColumns solves.
constexpr int64_t kMostColumns = 128;

namespace ops {

// The column loop over one block of columns, in the form without an inverse. In order k = 0 .. n-1, for every row:
//   t = w_k + a_k / F_kk;  code_k = clamp(round(t / scale) + zero);  e_k = w_k - dequantized_k;  a_j += e_k F_jk for
//   j > k
// where a starts as `feedback`. Ties round to even. loss[r] += sum_k (F_kk (t - dequantized_k))^2.
// w, feedback, errors [rows, n] f32, n at most kMostColumns; factor [n, n] f32 (a diagonal block of F); groups[k]:
// column of the grid that k uses; codes [rows, n] u8; loss [rows, 1] f32
struct QuantizeColumns {
  static constexpr const char* kName = "quantize_columns";
  static constexpr bool kIsProduct = true;
  ConstMatrixView w, feedback, factor;
  std::span<const int32_t> groups;
  Grid grid;
  MatrixView codes, errors, loss;

  auto reads() { return std::array{&w, &feedback, &factor, &grid.scales, &grid.zeros}; }
  auto writes() { return std::array{&codes, &errors, &loss}; }
  OpSizes sizes() const { return {w.rows, w.cols}; }
  DType dtype() const { return w.dtype; }
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[1]) * as_double(s[1]) / 2; }
  static QuantizeColumns trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.random(DType::f32, s[0], s[1]),
            t.random(DType::f32, s[0], s[1]),
            t.identity(s[1]),
            t.ids(s[1], 0),
            trial_grid(t, s[0]),
            t.undefined(DType::u8, s[0], s[1]),
            t.undefined(DType::f32, s[0], s[1]),
            t.zeros(DType::f32, s[0], 1)};
  }
};
void reference(const QuantizeColumns& op);

using ColumnOps = OpList<QuantizeColumns>;

}  // namespace ops
}  // namespace gptq
