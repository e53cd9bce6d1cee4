#include "ops/linear.h"

#include <vector>

#include "ops/elements.h"

namespace gptq::ops {

void reference(const Linear& op) {
  for (int64_t j = 0; j < op.w.rows; ++j) {
    const std::vector<double> w_row = load_row(op.w, j);
    for (int64_t i = 0; i < op.x.rows; ++i) {
      double sum = op.bias.empty() ? 0 : load(op.bias, 0, j);
      for (int64_t k = 0; k < op.x.cols; ++k) sum += load(op.x, i, k) * w_row[k];
      store(op.y, i, j, sum);
    }
  }
}

void reference(const NarrowLinear& op) { reference(Linear{.x = op.x, .w = op.w, .bias = op.bias, .y = op.y}); }

}  // namespace gptq::ops
