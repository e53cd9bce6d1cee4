#include "ops/columns.h"

#include <vector>

#include "ops/elements.h"

namespace gptq::ops {

void reference(const QuantizeColumns& op) {
  for (int64_t row = 0; row < op.w.rows; ++row) {
    std::vector<double> a = load_row(op.feedback, row);
    double row_loss = 0;
    for (int64_t k = 0; k < op.w.cols; ++k) {
      const double scale = load(op.grid.scales, row, op.groups[k]), zero = load(op.grid.zeros, row, op.groups[k]);
      const double diagonal = load(op.factor, k, k);
      const double target = load(op.w, row, k) + a[k] / diagonal;
      const double code = code_of(target, scale, zero, op.grid.bits);
      const double dequantized = scale * (code - zero);
      const double error = load(op.w, row, k) - dequantized;
      for (int64_t j = k + 1; j < op.w.cols; ++j) a[j] += error * load(op.factor, j, k);
      row_loss += diagonal * (target - dequantized) * diagonal * (target - dequantized);
      store(op.codes, row, k, code);
      store(op.errors, row, k, error);
    }
    add_to(op.loss, row, 0, row_loss);
  }
}

}  // namespace gptq::ops
