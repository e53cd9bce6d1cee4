#include "ops/state_space.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/elements.h"

namespace gptq::ops {
namespace {

double softplus(double x) { return x > 20 ? x : std::log1p(std::exp(x)); }

// Calls pass(first row, end row) for each sequence.
template <typename Pass>
void for_each_sequence(SequenceOffsets offsets, const Pass& pass) {
  for (size_t s = 0; s + 1 < offsets.size(); ++s) pass(offsets[s], offsets[s + 1]);
}

}  // namespace

void reference(const StateSpaceDual& op) {
  const auto& [heads, head_dim, groups, state, min_step, max_step] = op.shape;
  for_each_sequence(op.offsets, [&](int64_t first, int64_t end) {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t column = head * head_dim, group_column = head / (heads / groups) * state;
      std::vector<double> h(static_cast<size_t>(state * head_dim));
      for (int64_t row = first; row < end; ++row) {
        const double step = std::clamp(softplus(load(op.dt, row, head) + load(op.dt_bias, 0, head)),
                                       static_cast<double>(min_step), static_cast<double>(max_step));
        const double decay = std::exp(-std::exp(load(op.a_log, 0, head)) * step);
        for (int64_t p = 0; p < head_dim; ++p) {
          const double x = load(op.x, row, column + p);
          double y = load(op.d, 0, head) * x;
          for (int64_t n = 0; n < state; ++n) {
            double& element = h[n * head_dim + p];
            element = decay * element + load(op.b, row, group_column + n) * step * x;
            y += load(op.c, row, group_column + n) * element;
          }
          store(op.y, row, column + p, y);
        }
      }
    }
  });
}

void reference(const SelectiveScan& op) {
  for_each_sequence(op.offsets, [&](int64_t first, int64_t end) {
    for (int64_t channel = 0; channel < op.x.cols; ++channel) {
      std::vector<double> h(static_cast<size_t>(op.b.cols));
      for (int64_t row = first; row < end; ++row) {
        const double step = softplus(load(op.dt, row, channel)), x = load(op.x, row, channel);
        double y = load(op.d, 0, channel) * x;
        for (int64_t n = 0; n < op.b.cols; ++n) {
          const double decay = std::exp(-std::exp(load(op.a_log, channel, n)) * step);
          h[n] = decay * h[n] + load(op.b, row, n) * step * x;
          y += load(op.c, row, n) * h[n];
        }
        store(op.y, row, channel, y);
      }
    }
  });
}

}  // namespace gptq::ops
