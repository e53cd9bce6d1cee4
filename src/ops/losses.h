// Measures of logits.
#pragma once

#include "ops/op.h"

namespace gptq::ops {

// losses[i] = log(sum(exp(logits[i, :]))) - logits[i, targets[i]].   logits [n, vocabulary], losses [n, 1] f32
struct TokenLosses {
  static constexpr const char* kName = "token_losses";
  ConstMatrixView logits;
  std::span<const int32_t> targets;
  MatrixView losses;

  auto reads() { return std::array{&logits}; }
  auto writes() { return std::array{&losses}; }
  OpSizes sizes() const { return {logits.rows, logits.cols}; }
  DType dtype() const { return logits.dtype; }
  static TokenLosses trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.ids(s[0], 0), t.undefined(DType::f32, s[0], 1)};
  }
};
void reference(const TokenLosses& op);

// For each row: divergence = KL(softmax(p) || softmax(q)); same_top = 1 where both have their (first) maximum in the
// same place, else 0.   p, q [n, vocabulary]; divergence, same_top [n, 1] f32
struct CompareLogits {
  static constexpr const char* kName = "compare_logits";
  ConstMatrixView p, q;
  MatrixView divergence, same_top;

  auto reads() { return std::array{&p, &q}; }
  auto writes() { return std::array{&divergence, &same_top}; }
  OpSizes sizes() const { return {p.rows, p.cols}; }
  DType dtype() const { return p.dtype; }
  static CompareLogits trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]), t.random(dtype, s[0], s[1]), t.undefined(DType::f32, s[0], 1),
            t.undefined(DType::f32, s[0], 1)};
  }
};
void reference(const CompareLogits& op);

using LossOps = OpList<TokenLosses, CompareLogits>;

}  // namespace gptq::ops
