// State-space models: linear recurrences over the tokens of a sequence whose coefficients depend on the tokens.
// Each sequence starts from a state of zeros.
#pragma once

#include <cmath>

#include "ops/op.h"
#include "ops/rope.h"

namespace gptq {

// A head has a state [state, head_dim]; heads / groups neighbouring heads share b and c.
struct StateSpaceShape {
  int64_t heads = 0, head_dim = 0, groups = 1, state = 0;
  float min_step = 0, max_step = INFINITY;  // time_step_limit: bounds of the step sizes
};

namespace ops {

// Mamba-2's layer (Dao and Gu 2024, arXiv 2405.21060). With the step size s = clamp(softplus(dt + dt_bias)) of a token
// and head, and a = -exp(a_log), the state and the output are
//   h = exp(a s) h + b' (s x)        y = c h + d x
// Sums in f32; where x is f16 or bf16, operands of products may be rounded to 11 bits.
// x, y [tokens, heads * head_dim]; dt [tokens, heads]; b, c [tokens, groups * state]; dt_bias, a_log, d [1, heads] f32
struct StateSpaceDual {
  static constexpr const char* kName = "state_space_dual";
  static constexpr bool kIsProduct = true;
  ConstMatrixView x, dt, b, c, dt_bias, a_log, d;
  SequenceOffsets offsets;
  StateSpaceShape shape;
  MatrixView y;

  auto reads() { return std::array{&x, &dt, &b, &c, &dt_bias, &a_log, &d}; }
  auto writes() { return std::array{&y}; }
  // Tokens, heads, head_dim, state.
  OpSizes sizes() const { return {x.rows, shape.heads, shape.head_dim, shape.state}; }
  DType dtype() const { return x.dtype; }
  // Each token updates the state and reads it.
  static double work(const OpSizes& s) {
    return 2 * as_double(s[0]) * as_double(s[1]) * as_double(s[2]) * as_double(s[3]);
  }
  static OpSizes trial_sizes(OpSizes s, const TrialLimits& limits) {
    halve<StateSpaceDual>(s, 0, 512, limits.products);
    halve<StateSpaceDual>(s, 1, 4, limits.products);
    return s;
  }
  static StateSpaceDual trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    const MatrixView of_heads = t.filled(0.1F, 1, s[1]);
    return {t.random(dtype, s[0], s[1] * s[2]),
            t.random(dtype, s[0], s[1]),
            t.random(dtype, s[0], s[3]),
            t.random(dtype, s[0], s[3]),
            of_heads,
            of_heads,
            of_heads,
            t.sequence(s[0]),
            {.heads = s[1], .head_dim = s[2], .state = s[3]},
            t.undefined(dtype, s[0], s[1] * s[2])};
  }
};
void reference(const StateSpaceDual& op);

// Mamba's selective scan (Gu and Dao 2023, arXiv 2312.00752). Each channel has a state [1, state]; with the step size
// s = softplus(dt) of a token and channel, and a = -exp(a_log), the state and the output are
//   h = exp(a s) h + b (s x)        y = c h' + d x
// Sums in f32.   x, dt, y [tokens, channels]; b, c [tokens, state]; a_log [channels, state], d [1, channels], both f32
struct SelectiveScan {
  static constexpr const char* kName = "selective_scan";
  ConstMatrixView x, dt, b, c, a_log, d;
  SequenceOffsets offsets;
  MatrixView y;

  auto reads() { return std::array{&x, &dt, &b, &c, &a_log, &d}; }
  auto writes() { return std::array{&y}; }
  OpSizes sizes() const { return {x.rows, x.cols, b.cols}; }
  DType dtype() const { return x.dtype; }
  // Elements of states.
  static double work(const OpSizes& s) { return as_double(s[0]) * as_double(s[1]) * as_double(s[2]); }
  static SelectiveScan trial(TrialOperands& t, const OpSizes& s, DType dtype) {
    return {t.random(dtype, s[0], s[1]),
            t.random(dtype, s[0], s[1]),
            t.random(dtype, s[0], s[2]),
            t.random(dtype, s[0], s[2]),
            t.filled(0.1F, s[1], s[2]),
            t.filled(0.1F, 1, s[1]),
            t.sequence(s[0]),
            t.undefined(dtype, s[0], s[1])};
  }
};
void reference(const SelectiveScan& op);

using StateSpaceOps = OpList<StateSpaceDual, SelectiveScan>;

}  // namespace ops
}  // namespace gptq
