// Estimated multiply-adds of a job, for its progress and the time left.
#pragma once

#include "model/specs.h"

namespace gptq {

// The forward pass of `tokens` tokens through a step.
inline double forward_work(const std::vector<LinearSpec>& step, int64_t tokens) {
  double per_token = 0;
  for (const LinearSpec& linear : step) per_token += static_cast<double>(linear.in_features * linear.out_features);
  return per_token * step[0].share * static_cast<double>(tokens);
}

inline double forward_work(const StepSpecs& steps, int64_t tokens) {
  double work = 0;
  for (const auto& step : steps) work += forward_work(step, tokens);
  return work;
}

// A Hessian; with two streams also their cross product.
inline double hessian_work(const std::vector<LinearSpec>& step, int64_t tokens, bool two_streams = false) {
  const auto n = static_cast<double>(step[0].in_features);
  return (two_streams ? 1.5 : 0.5) * n * n * step[0].share * static_cast<double>(tokens);
}

// Both of a sequence that passes the quantized and the original step, and is not calibrated with.
inline double watching_work(const std::vector<LinearSpec>& step, int64_t tokens) {
  return 2 * forward_work(step, tokens);
}

// A step's sweep: its Hessian, and all streams through it.
inline double sweep_work(const std::vector<LinearSpec>& step, int64_t tokens, bool two_streams) {
  return (two_streams ? 2 : 1) * forward_work(step, tokens) + hessian_work(step, tokens, two_streams);
}

// The product W R, the feedback, the search, and a share of the factorization.
inline double solve_work(const LinearSpec& linear) {
  const auto n = static_cast<double>(linear.in_features), rows = static_cast<double>(linear.out_features);
  return rows * n * (n + 200) + n * n * n / 6;
}

}  // namespace gptq
