#include "ops/losses.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/elements.h"

namespace gptq::ops {

void reference(const TokenLosses& op) {
  for (int64_t row = 0; row < op.logits.rows; ++row) {
    std::vector<double> log_probabilities = load_row(op.logits, row);
    log_softmax(log_probabilities);
    store(op.losses, row, 0, -log_probabilities[op.targets[row]]);
  }
}

void reference(const CompareLogits& op) {
  for (int64_t row = 0; row < op.p.rows; ++row) {
    std::vector<double> log_p = load_row(op.p, row), log_q = load_row(op.q, row);
    const auto top = [](const std::vector<double>& x) { return std::max_element(x.begin(), x.end()) - x.begin(); };
    store(op.same_top, row, 0, top(log_p) == top(log_q) ? 1 : 0);
    log_softmax(log_p);
    log_softmax(log_q);
    double sum = 0;
    for (int64_t j = 0; j < op.p.cols; ++j) sum += std::exp(log_p[j]) * (log_p[j] - log_q[j]);
    store(op.divergence, row, 0, sum);
  }
}

}  // namespace gptq::ops
