// Functions of single elements.
#pragma once

#include "ops/op.h"

namespace gptq {

// clamped_swiglu (gpt_oss) is a gate with bounds on both sides: with g = min(gate, 7) it is
// g / (1 + exp(-1.702 g)) (clamp(up, -7, 7) + 1). quick_gelu is x / (1 + exp(-1.702 x)), softplus log(1 + exp(x)),
// identity x.
enum class Activation : uint8_t {
  silu,
  gelu,
  gelu_tanh,
  relu,
  relu_squared,
  clamped_swiglu,
  quick_gelu,
  sigmoid,
  softplus,
  identity
};

namespace ops {

// y = activation(gate) * up, or activation(gate) where up is empty.   all [tokens, width]
struct Gate {
  static constexpr const char* kName = "gate";
  ConstMatrixView gate, up;
  Activation activation = Activation::silu;
  MatrixView y;

  auto reads() { return std::array{&gate, &up}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {y.rows, y.cols}; }
  DType dtype() const { return gate.dtype; }
  static Gate trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.random(dtype, s[0], s[1]), Activation::silu, t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const Gate& op);
// activation(x), for references.
double activated(Activation activation, double x);

// Bounds each element of x, in place: clamp(x, -bound, bound), or bound tanh(x / bound).   x [rows, cols]
struct Cap {
  static constexpr const char* kName = "cap";
  enum Kind : uint8_t { hard, soft };
  Kind kind = hard;
  float bound = 0;
  MatrixView x;

  auto reads() { return no_reads(); }
  auto writes() { return std::array{&x}; }
  OpSizes sizes() const { return {x.rows, x.cols}; }
  DType dtype() const { return x.dtype; }
  static Cap trial(TrialOperands& t, const OpSizes& s, DType dtype) { return {soft, 30, t.random(dtype, s[0], s[1])}; }
};
void reference(const Cap& op);

// xIELU (arXiv 2411.13010): y = p x^2 + x / 2 for x > 0, else n (exp(min(x, -1e-6)) - 1 - x) + x / 2, where
// p = log(1 + exp(alphas[0])) and n = 1 / 2 + log(1 + exp(alphas[1])).   x, y [tokens, width], alphas [2, 1] f32
struct Xielu {
  static constexpr const char* kName = "xielu";
  ConstMatrixView x, alphas;
  MatrixView y;

  auto reads() { return std::array{&x, &alphas}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {y.rows, y.cols}; }
  DType dtype() const { return x.dtype; }
  static Xielu trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.random(DType::f32, 2, 1), t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const Xielu& op);

using GateOps = OpList<Gate, Cap, Xielu>;

}  // namespace ops
}  // namespace gptq
