#include "ops/sums.h"

#include "ops/elements.h"

namespace gptq::ops {

void reference(const Add& op) {
  for (int64_t i = 0; i < op.y.rows; ++i) {
    for (int64_t j = 0; j < op.y.cols; ++j) add_to(op.y, i, j, static_cast<double>(op.factor) * load(op.x, i, j));
  }
}

void reference(const AddRows& op) {
  for (int64_t i = 0; i < op.x.rows; ++i) {
    for (int64_t j = 0; j < op.x.cols; ++j)
      add_to(op.y, op.ids[i], j, static_cast<double>(op.weights[i]) * load(op.x, i, j));
  }
}

}  // namespace gptq::ops
