// Sums over the elements of each row.
#pragma once

#include "ops/op.h"

namespace gptq::ops {

// products[r, g] = sum of x_rk y_rk over the columns k of group g, in f32.
// x, y [rows, groups * group_size] f32; products [rows, groups] f32
struct GroupProducts {
  static constexpr const char* kName = "group_products";
  ConstMatrixView x, y;
  int64_t group_size = 0;
  MatrixView products;

  auto reads() { return std::array{&x, &y}; }
  auto writes() { return std::array{&products}; }
  OpSizes sizes() const { return {x.rows, x.cols, group_size}; }
  DType dtype() const { return x.dtype; }
  static GroupProducts trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.random(DType::f32, s[0], s[1]), t.random(DType::f32, s[0], s[1]), s[2],
            t.undefined(DType::f32, s[0], s[1] / s[2])};
  }
};
void reference(const GroupProducts& op);

// norms[r, 0] += sum_k x[r, k]^2.   x [rows, n], norms [rows, 1] f32
struct AddRowNorms {
  static constexpr const char* kName = "add_row_norms";
  ConstMatrixView x;
  MatrixView norms;

  auto reads() { return std::array{&x}; }
  auto writes() { return std::array{&norms}; }
  OpSizes sizes() const { return {x.rows, x.cols}; }
  DType dtype() const { return x.dtype; }
  static AddRowNorms trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.zeros(DType::f32, s[0], 1)};
  }
};
void reference(const AddRowNorms& op);

// norms[r, 0] += sum_k (w R)_rk^2 with R = factor', R upper triangular: the output energy tr(W H W') of each row. A
// statistic: w and R may be rounded to bf16.
// w [rows, n] f32; factor [n, n] f32, of which the lower triangle is read; norms [rows, 1] f32
struct AddProductNorms {
  static constexpr const char* kName = "add_product_norms";
  static constexpr bool kIsProduct = true;
  ConstMatrixView w, factor;
  MatrixView norms;

  auto reads() { return std::array{&w, &factor}; }
  auto writes() { return std::array{&norms}; }
  OpSizes sizes() const { return {w.rows, w.cols}; }
  DType dtype() const { return w.dtype; }
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[1]) * as_double(s[1]) / 2; }
  // Fewer rows first.
  static OpSizes trial_sizes(OpSizes s, const TrialLimits& limits) {
    halve<AddProductNorms>(s, 0, 256, limits.products);
    halve<AddProductNorms>(s, 1, 512, limits.products);
    return s;
  }
  static AddProductNorms trial(TrialOperands& t, const OpSizes& s, DType /*dtype*/) {
    return {t.random(DType::f32, s[0], s[1]), t.identity(s[1]), t.zeros(DType::f32, s[0], 1)};
  }
};
void reference(const AddProductNorms& op);

using RowSumOps = OpList<GroupProducts, AddRowNorms, AddProductNorms>;

}  // namespace gptq::ops
