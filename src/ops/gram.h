// Products of activations with themselves: Hessians, and what the targets need.
#pragma once

#include "ops/op.h"

namespace gptq::ops {

// Sizes tokens, n: fewer tokens first.
template <typename Op>
OpSizes trial_sizes_of_gram(OpSizes sizes, const TrialLimits& limits) {
  halve<Op>(sizes, 0, 256, limits.products);
  halve<Op>(sizes, 1, 512, limits.products);
  return sizes;
}

// h += x' x in the lower triangle, products exact or in f32, sums in f32; the upper triangle is undefined afterwards.
// Rows of x that hold NaN or infinity add nothing and are counted: dropped[0, 0] += their number.
// x [tokens, n], h [n, n] f32, dropped [1, 1] i32
struct AddGram {
  static constexpr const char* kName = "add_gram";
  static constexpr bool kIsProduct = true;
  ConstMatrixView x;
  MatrixView h, dropped;

  auto reads() { return std::array{&x}; }
  auto writes() { return std::array{&h, &dropped}; }
  OpSizes sizes() const { return {x.rows, x.cols}; }
  DType dtype() const { return x.dtype; }
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[1]) * as_double(s[1]) / 2; }
  static OpSizes trial_sizes(const OpSizes& s, const TrialLimits& limits) {
    return trial_sizes_of_gram<AddGram>(s, limits);
  }
  static AddGram trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.zeros(DType::f32, s[1], s[1]), t.zeros(DType::i32, 1, 1)};
  }
};
void reference(const AddGram& op);

// c += x' (original - x), the differences rounded to x's dtype, products exact or in f32, sums in f32. Rows that hold
// NaN or infinity in either add nothing.   x, original [tokens, n] of the same dtype, c [n, n] f32
struct AddCrossGram {
  static constexpr const char* kName = "add_cross_gram";
  static constexpr bool kIsProduct = true;
  ConstMatrixView x, original;
  MatrixView c;

  auto reads() { return std::array{&x, &original}; }
  auto writes() { return std::array{&c}; }
  OpSizes sizes() const { return {x.rows, x.cols}; }
  DType dtype() const { return x.dtype; }
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[1]) * as_double(s[1]); }
  static OpSizes trial_sizes(const OpSizes& s, const TrialLimits& limits) {
    return trial_sizes_of_gram<AddCrossGram>(s, limits);
  }
  static AddCrossGram trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.random(dtype, s[0], s[1]), t.zeros(DType::f32, s[1], s[1])};
  }
};
void reference(const AddCrossGram& op);

using GramOps = OpList<AddGram, AddCrossGram>;

}  // namespace gptq::ops
