// Ops that add matrices.
#pragma once

#include "ops/op.h"

namespace gptq::ops {

// y += factor x.   x, y [rows, cols]
struct Add {
  static constexpr const char* kName = "add";
  ConstMatrixView x;
  float factor = 1;
  MatrixView y;

  auto reads() { return std::array{&x}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {y.rows, y.cols}; }
  DType dtype() const { return x.dtype; }
  static Add trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), 1, t.random(dtype, s[0], s[1])};
  }
};
void reference(const Add& op);

// y[ids[i], :] += weights[i] x[i, :].   x [ids.size(), width], y [n, width]; ids are distinct and lie in [0, n)
struct AddRows {
  static constexpr const char* kName = "add_rows";
  ConstMatrixView x;
  std::span<const int32_t> ids;
  std::span<const float> weights;
  MatrixView y;

  auto reads() { return std::array{&x}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {x.rows, x.cols}; }
  DType dtype() const { return x.dtype; }
  static AddRows trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.counted(s[0]), t.weights(s[0], 0.25F), t.random(dtype, s[0], s[1])};
  }
};
void reference(const AddRows& op);

using SumOps = OpList<Add, AddRows>;

}  // namespace gptq::ops
