// Products with weights that stay codes.
#pragma once

#include "ops/linear.h"
#include "ops/op.h"

namespace gptq {

// A weight [n, k] as a stream of bits for each output, as in Pack. Inputs share a grid in groups of `group_size`, the
// last of which may be shorter; a group's codes are whole words.   words [k * bits / 32, n] i32, scales [groups, n]
// float, zeros [groups, n] u8
struct PackedWeight {
  ConstMatrixView words, scales, zeros;
  int bits = 0;  // 2, 3, 4 or 8
  int64_t group_size = 0;

  int64_t inputs() const { return bits == 0 ? 0 : words.rows * 32 / bits; }
  int64_t outputs() const { return words.cols; }
  // Of some outputs.
  PackedWeight part(int64_t first, int64_t count) const {
    return {words.col_range(first, count), scales.col_range(first, count), zeros.col_range(first, count), bits,
            group_size};
  }
};

namespace ops {

inline PackedWeight trial_weight(TrialOperands& t, int64_t outputs, int64_t inputs, int bits) {
  constexpr int64_t kGroup = 128;
  const int64_t group = inputs % kGroup == 0 ? kGroup : inputs, groups = group > 0 ? inputs / group : 0;
  return {t.zeros(DType::i32, inputs * bits / 32, outputs), t.filled(0.01F, groups, outputs),
          t.zeros(DType::u8, groups, outputs), bits, group};
}

// w = scale (code - zero).   w [n, k] float
struct DequantizePacked {
  static constexpr const char* kName = "dequantize_packed";
  PackedWeight weight;
  MatrixView w;

  auto reads() { return std::array{&weight.words, &weight.scales, &weight.zeros}; }
  auto writes() { return std::array{&w}; }
  OpSizes sizes() const { return {w.rows, w.cols, weight.bits}; }
  DType dtype() const { return w.dtype; }
  static DequantizePacked trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {trial_weight(t, s[0], s[1], static_cast<int>(s[2])), t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const DequantizePacked& op);

// y = x w' + bias, for a few rows of x: limited by reading the codes, which are multiplied as they are; sums in f32.
// For more rows DequantizePacked and Linear are faster.   x [m, k], bias [1, n] or empty, y [m, n]
struct PackedLinear {
  static constexpr const char* kName = "packed_linear";
  static constexpr bool kIsProduct = true;
  static constexpr int64_t kMostRows = 4;
  ConstMatrixView x;
  PackedWeight weight;
  ConstMatrixView bias;
  MatrixView y;

  auto reads() { return std::array{&x, &weight.words, &weight.scales, &weight.zeros, &bias}; }
  auto writes() { return std::array{&y}; }
  // Rows, outputs, words of an output, bits.
  OpSizes sizes() const { return {x.rows, y.cols, weight.words.rows, weight.bits}; }
  DType dtype() const { return x.dtype; }
  static int64_t inputs_of(const OpSizes& s) { return s[2] * 32 / s[3]; }
  static double work(const OpSizes& s) { return Linear::work({s[0], s[1], inputs_of(s)}); }
  static OpSizes trial_sizes(OpSizes s, const TrialLimits& limits) {
    halve<PackedLinear>(s, 0, 256, limits.products);
    return s;
  }
  static PackedLinear trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    const int64_t inputs = inputs_of(s);
    return {t.random(dtype, s[0], inputs),
            trial_weight(t, s[1], inputs, static_cast<int>(s[3])),
            {},
            t.undefined(dtype, s[0], s[1])};
  }
  template <typename Device>
  void compose(Device& device) const {
    Matrix w(device, x.dtype, y.cols, x.cols);
    device.run(DequantizePacked{.weight = weight, .w = w});
    device.run(Linear{.x = x, .w = w, .bias = bias, .y = y});
  }
};
void reference(const PackedLinear& op);

using PackedOps = OpList<DequantizePacked, PackedLinear>;

}  // namespace ops
}  // namespace gptq
