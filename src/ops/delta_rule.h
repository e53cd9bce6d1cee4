// Linear attention by the gated delta rule (Yang et al. 2024, arXiv 2412.06464): a state of fixed size in the place of
// the keys and values of all earlier tokens.
#pragma once

#include "ops/rope.h"

namespace gptq {

// Head h of the values has the queries and keys of head h / (value_heads / key_heads).
struct DeltaShape {
  int64_t key_heads = 0, value_heads = 0, key_dim = 0, value_dim = 0;
};

namespace ops {

// How much of a state is left after each token, as a logarithm: y = -exp(log_rate) log(1 + exp(x + bias)).
// x [tokens, heads], log_rate, bias [1, heads] f32, y [tokens, heads] f32
struct LogDecay {
  static constexpr const char* kName = "log_decay";
  ConstMatrixView x, log_rate, bias;
  MatrixView y;

  auto reads() { return std::array{&x, &log_rate, &bias}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {y.rows, y.cols}; }
  DType dtype() const { return x.dtype; }
  static LogDecay trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    const MatrixView row = t.random(DType::f32, 1, s[1]);
    return {t.random(dtype, s[0], s[1]), row, row, t.undefined(DType::f32, s[0], s[1])};
  }
};
void reference(const LogDecay& op);

// For each head of values and each token of a sequence, in order, with a state s [key_dim, value_dim] that is zero at
// first:   s = exp(log_decay) s;   s += beta k (v - k' s)';   y = q' s.   States are f32, sums in f32; where y is bf16,
// operands of products may be rounded to 16 bits.
// q, k [tokens, key_heads * key_dim], v, y [tokens, value_heads * value_dim], log_decay (not above 0), beta [tokens,
// value_heads] f32
struct GatedDeltaRule {
  static constexpr const char* kName = "gated_delta_rule";
  static constexpr bool kIsProduct = true;
  ConstMatrixView q, k, v, log_decay, beta;
  SequenceOffsets offsets;
  DeltaShape shape;
  MatrixView y;

  auto reads() { return std::array{&q, &k, &v, &log_decay, &beta}; }
  auto writes() { return std::array{&y}; }
  // Tokens, heads of values, key_dim, value_dim.
  OpSizes sizes() const { return {y.rows, shape.value_heads, shape.key_dim, shape.value_dim}; }
  DType dtype() const { return q.dtype; }
  // In chunks of 64 tokens: their products with each other, with the state and with its update.
  static double work(const OpSizes& s) {
    const double key_dim = as_double(s[2]), value_dim = as_double(s[3]);
    return as_double(s[0]) * as_double(s[1]) * (3 * key_dim * value_dim + 128 * key_dim + 96 * value_dim);
  }
  static OpSizes trial_sizes(OpSizes s, const TrialLimits& limits) {
    halve<GatedDeltaRule>(s, 0, 128, limits.products);
    halve<GatedDeltaRule>(s, 1, 4, limits.products);
    return s;
  }
  static GatedDeltaRule trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    const int64_t keys = s[1] * s[2], values = s[1] * s[3];
    const MatrixView gates = t.filled(-0.1F, s[0], s[1]);
    return {t.random(dtype, s[0], keys),   t.random(dtype, s[0], keys),
            t.random(dtype, s[0], values), gates,
            t.filled(0.01F, s[0], s[1]),   t.sequence(s[0]),
            {s[1], s[1], s[2], s[3]},      t.undefined(dtype, s[0], values)};
  }
};
void reference(const GatedDeltaRule& op);

using DeltaRuleOps = OpList<LogDecay, GatedDeltaRule>;

}  // namespace ops
}  // namespace gptq
