#include "ops/gram.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/elements.h"

namespace gptq::ops {

void reference(const AddGram& op) {
  std::vector<std::vector<double>> finite_rows;
  for (int64_t row = 0; row < op.x.rows; ++row) {
    std::vector<double> values = load_row(op.x, row);
    if (std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); })) {
      finite_rows.push_back(std::move(values));
    } else {
      op.dropped.row<int32_t>(0)[0] += 1;
    }
  }
  for (int64_t i = 0; i < op.x.cols; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (const std::vector<double>& row : finite_rows) sum += row[i] * row[j];
      add_to(op.h, i, j, sum);
    }
  }
}

void reference(const AddCrossGram& op) {
  Matrix difference(host_memory(), op.x.dtype, op.x.rows, op.x.cols);
  std::vector<int64_t> finite_rows;
  for (int64_t row = 0; row < op.x.rows; ++row) {
    bool finite = true;
    for (int64_t k = 0; k < op.x.cols; ++k) {
      const double a = load(op.x, row, k), b = load(op.original, row, k);
      finite = finite && std::isfinite(a) && std::isfinite(b);
      store(difference, row, k, b - a);
    }
    if (finite) finite_rows.push_back(row);
  }
  for (int64_t i = 0; i < op.x.cols; ++i) {
    for (int64_t j = 0; j < op.x.cols; ++j) {
      double sum = 0;
      for (const int64_t row : finite_rows) sum += load(op.x, row, i) * load(difference, row, j);
      add_to(op.c, i, j, sum);
    }
  }
}

}  // namespace gptq::ops
