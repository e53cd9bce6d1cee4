// Products with weights.
#pragma once

#include <algorithm>

#include "ops/gates.h"
#include "ops/op.h"
#include "ops/sums.h"

namespace gptq {

// The two linears of a gated MLP and the function between them. Biases [1, n] may be empty, and so may `up`.
struct GatedWeights {
  ConstMatrixView gate, gate_bias, up, up_bias;  // [n, k], [1, n]
  Activation activation = Activation::silu;
};

namespace ops {

// Sizes m, n, k. The column loop multiplies by weights of every width k: one power of two stands for those up to the
// next.
template <typename Op>
OpSizes trial_sizes_of_linear(OpSizes sizes, const TrialLimits& limits) {
  constexpr int64_t kNarrow = 256;
  int64_t& k = sizes[2];
  if (sizes[1] <= kNarrow && k > 0) {
    int64_t power = 1;
    while (power * 2 <= k) power *= 2;
    k = power;
  }
  for (const size_t i : {0, 1, 2}) halve<Op>(sizes, i, 256, limits.products);
  return sizes;
}

// y = x w' + bias. Products of f32 inputs keep f32 accuracy.   x [m, k], w [n, k], bias [1, n] or empty, y [m, n]
struct Linear {
  static constexpr const char* kName = "linear";
  static constexpr bool kIsProduct = true;
  ConstMatrixView x, w, bias;
  MatrixView y;

  auto reads() { return std::array{&x, &w, &bias}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {x.rows, w.rows, x.cols}; }
  DType dtype() const { return x.dtype; }
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[1]) * std::max(as_double(s[2]), 16.0); }
  static OpSizes trial_sizes(const OpSizes& s, const TrialLimits& limits) {
    return trial_sizes_of_linear<Linear>(s, limits);
  }
  static Linear trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[2]), t.random(dtype, s[1], s[2]), {}, t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const Linear& op);

// y = activation(x gate' + gate_bias) * (x up' + up_bias), each side rounded to y's dtype first: Linear and Gate, bit
// for bit.   x [m, k], y [m, n]
struct GatedLinear {
  static constexpr const char* kName = "gated_linear";
  static constexpr bool kIsProduct = true;
  ConstMatrixView x;
  GatedWeights weights;
  MatrixView y;

  auto reads() { return std::array{&x, &weights.gate, &weights.gate_bias, &weights.up, &weights.up_bias}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {x.rows, y.cols, x.cols}; }
  DType dtype() const { return x.dtype; }
  static double work(const OpSizes& s) { return 2 * as_double(s[0]) * as_double(s[1]) * as_double(s[2]); }
  static OpSizes trial_sizes(const OpSizes& s, const TrialLimits& limits) {
    return trial_sizes_of_linear<GatedLinear>(s, limits);
  }
  static GatedLinear trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[2]),
            {.gate = t.random(dtype, s[1], s[2]), .up = t.random(dtype, s[1], s[2])},
            t.undefined(dtype, s[0], s[1])};
  }
  // Device: a Memory with run().
  template <typename Device>
  void compose(Device& device) const {
    const auto side = [&](ConstMatrixView w, ConstMatrixView bias) {
      if (w.empty()) return Matrix();
      Matrix product(device, y.dtype, y.rows, y.cols);
      device.run(Linear{.x = x, .w = w, .bias = bias, .y = product});
      return product;
    };
    const Matrix gate = side(weights.gate, weights.gate_bias), up = side(weights.up, weights.up_bias);
    device.run(Gate{.gate = gate, .up = up, .activation = weights.activation, .y = y});
  }
};

// y += factor (x w' + bias), the bracket rounded to x's dtype first: Linear and Add, bit for bit.
// x [m, k], w [n, k], bias [1, n] or empty, y [m, n]
struct AddLinear {
  static constexpr const char* kName = "add_linear";
  static constexpr bool kIsProduct = true;
  ConstMatrixView x, w, bias;
  float factor = 1;
  MatrixView y;

  auto reads() { return std::array{&x, &w, &bias}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {x.rows, y.cols, x.cols}; }
  DType dtype() const { return x.dtype; }
  static double work(const OpSizes& s) { return Linear::work(s); }
  static OpSizes trial_sizes(const OpSizes& s, const TrialLimits& limits) {
    return trial_sizes_of_linear<AddLinear>(s, limits);
  }
  static AddLinear trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[2]),
            t.random(dtype, s[1], s[2]),
            {},
            1,
            t.undefined(t.residual_dtype(dtype), s[0], s[1])};
  }
  template <typename Device>
  void compose(Device& device) const {
    Matrix product(device, x.dtype, y.rows, y.cols);
    device.run(Linear{.x = x, .w = w, .bias = bias, .y = product});
    device.run(Add{.x = product, .factor = factor, .y = y});
  }
};

// Linear for a few rows of x, limited by reading w, whose rows are multiplied as they are stored: sums in f32, in
// another order than Linear's.   x [m, k], w [n, k], bias [1, n] or empty, y [m, n]
struct NarrowLinear {
  static constexpr const char* kName = "narrow_linear";
  static constexpr bool kIsProduct = true;
  static constexpr int64_t kMostRows = 4;  // beyond them Linear is faster
  ConstMatrixView x, w, bias;
  MatrixView y;

  auto reads() { return std::array{&x, &w, &bias}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {x.rows, w.rows, x.cols}; }
  DType dtype() const { return x.dtype; }
  static double work(const OpSizes& s) { return Linear::work(s); }
  static OpSizes trial_sizes(const OpSizes& s, const TrialLimits& limits) {
    return trial_sizes_of_linear<NarrowLinear>(s, limits);
  }
  static NarrowLinear trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[2]), t.random(dtype, s[1], s[2]), {}, t.undefined(dtype, s[0], s[1])};
  }
  template <typename Device>
  void compose(Device& device) const {
    device.run(Linear{.x = x, .w = w, .bias = bias, .y = y});
  }
};

void reference(const NarrowLinear& op);

using LinearOps = OpList<Linear, GatedLinear, AddLinear, NarrowLinear>;

}  // namespace ops
}  // namespace gptq
