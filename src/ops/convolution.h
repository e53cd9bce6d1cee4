// Convolutions over the tokens of a sequence.
#pragma once

#include "ops/gates.h"
#include "ops/rope.h"

namespace gptq::ops {

// Depthwise and causal: y[t, c] = activation(bias[c] + sum_j weight[c, j] x[t - (taps - 1) + j, c]), where tokens
// before the start of a sequence are zero.   x, y [tokens, channels], weight [channels, taps] f32, bias [1, channels]
// f32 or empty
struct CausalConvolution {
  static constexpr const char* kName = "causal_convolution";
  ConstMatrixView x, weight, bias;
  SequenceOffsets offsets;
  Activation activation = Activation::identity;
  MatrixView y;

  auto reads() { return std::array{&x, &weight, &bias}; }
  auto writes() { return std::array{&y}; }
  // Tokens, channels, taps.
  OpSizes sizes() const { return {y.rows, y.cols, weight.cols}; }
  DType dtype() const { return x.dtype; }
  static CausalConvolution trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]),   t.random(DType::f32, s[1], s[2]), {}, t.sequence(s[0]), Activation::silu,
            t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const CausalConvolution& op);

using ConvolutionOps = OpList<CausalConvolution>;

}  // namespace gptq::ops
