#include "ops/symmetric.h"

#include <algorithm>

#include "ops/elements.h"

namespace gptq::ops {

void reference(const Mirror& op) {
  for (int64_t i = 0; i < op.h.rows; ++i) {
    for (int64_t j = i + 1; j < op.h.cols; ++j) store(op.h, i, j, load(op.h, j, i));
  }
}

void reference(const PermuteSymmetric& op) {
  for (int64_t i = 0; i < op.y.rows; ++i) {
    for (int64_t j = 0; j < op.y.cols; ++j) {
      const int64_t a = op.order[i], b = op.order[j];
      const double value = load(op.h, std::max(a, b), std::min(a, b));
      store(op.y, i, j, j > i ? 0 : j == i ? value + op.damp : value);
    }
  }
}

}  // namespace gptq::ops
