// Norms over groups of columns.
#pragma once

#include "ops/op.h"

namespace gptq::ops {

// y = x / sqrt(mean(x^2) + eps) * weight over each group of `width` columns of each row; group g has row g mod n of
// weight.   x, y [tokens, groups * width], weight [n, width]
struct RmsNorm {
  static constexpr const char* kName = "rms_norm";
  ConstMatrixView x, weight;
  float eps = 0;
  MatrixView y;

  auto reads() { return std::array{&x, &weight}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {y.rows, y.cols}; }
  DType dtype() const { return x.dtype; }
  static RmsNorm trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.random(dtype, 1, s[1]), 1e-5F, t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const RmsNorm& op);

// y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias, over the same groups as RmsNorm.
// x, y [tokens, groups * width], weight [n, width], bias [n, width] or empty
struct LayerNorm {
  static constexpr const char* kName = "layer_norm";
  ConstMatrixView x, weight, bias;
  float eps = 0;
  MatrixView y;

  auto reads() { return std::array{&x, &weight, &bias}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {y.rows, y.cols}; }
  DType dtype() const { return x.dtype; }
  static LayerNorm trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    const MatrixView weight = t.random(dtype, 1, s[1]);
    return {t.random(dtype, s[0], s[1]), weight, weight, 1e-5F, t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const LayerNorm& op);

using NormOps = OpList<RmsNorm, LayerNorm>;

}  // namespace gptq::ops
