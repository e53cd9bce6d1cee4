#include "ops/delta_rule.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/elements.h"

namespace gptq::ops {
namespace {

// One head of one sequence, [first, end), token by token.
void run_head(const GatedDeltaRule& op, int64_t head, int64_t first, int64_t end) {
  const DeltaShape& shape = op.shape;
  const int64_t keys = shape.key_dim, values = shape.value_dim, value_column = head * values,
                key_column = head / (shape.value_heads / shape.key_heads) * keys;
  std::vector<double> state(static_cast<size_t>(keys * values)), update(static_cast<size_t>(values));
  for (int64_t row = first; row < end; ++row) {
    for (double& value : state) value *= std::exp(load(op.log_decay, row, head));
    for (int64_t j = 0; j < values; ++j) {
      double known = 0;
      for (int64_t i = 0; i < keys; ++i) known += load(op.k, row, key_column + i) * state[i * values + j];
      update[j] = load(op.beta, row, head) * (load(op.v, row, value_column + j) - known);
    }
    for (int64_t i = 0; i < keys; ++i) {
      for (int64_t j = 0; j < values; ++j) state[i * values + j] += load(op.k, row, key_column + i) * update[j];
    }
    for (int64_t j = 0; j < values; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < keys; ++i) sum += load(op.q, row, key_column + i) * state[i * values + j];
      store(op.y, row, value_column + j, sum);
    }
  }
}

}  // namespace

void reference(const LogDecay& op) {
  for (int64_t i = 0; i < op.y.rows; ++i) {
    for (int64_t j = 0; j < op.y.cols; ++j) {
      const double x = load(op.x, i, j) + load(op.bias, 0, j),
                   softplus = std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x)));
      store(op.y, i, j, -std::exp(load(op.log_rate, 0, j)) * softplus);
    }
  }
}

void reference(const GatedDeltaRule& op) {
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) {
    for (int64_t head = 0; head < op.shape.value_heads; ++head) run_head(op, head, op.offsets[s], op.offsets[s + 1]);
  }
}

}  // namespace gptq::ops
