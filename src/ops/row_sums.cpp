#include "ops/row_sums.h"

#include "ops/elements.h"

namespace gptq::ops {

void reference(const GroupProducts& op) {
  for (int64_t row = 0; row < op.products.rows; ++row) {
    for (int64_t group = 0; group < op.products.cols; ++group) {
      double sum = 0;
      for (int64_t k = group * op.group_size; k < (group + 1) * op.group_size; ++k)
        sum += load(op.x, row, k) * load(op.y, row, k);
      store(op.products, row, group, sum);
    }
  }
}

void reference(const AddRowNorms& op) {
  for (int64_t i = 0; i < op.x.rows; ++i) {
    double sum = 0;
    for (const double value : load_row(op.x, i)) sum += value * value;
    add_to(op.norms, i, 0, sum);
  }
}

void reference(const AddProductNorms& op) {
  for (int64_t row = 0; row < op.w.rows; ++row) {
    double sum = 0;
    for (int64_t k = 0; k < op.w.cols; ++k) {
      double product = 0;
      for (int64_t j = 0; j <= k; ++j) product += load(op.w, row, j) * load(op.factor, k, j);
      sum += product * product;
    }
    add_to(op.norms, row, 0, sum);
  }
}

}  // namespace gptq::ops
