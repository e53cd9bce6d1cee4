#include "ops/norms.h"

#include <cmath>
#include <vector>

#include "ops/elements.h"

namespace gptq::ops {
namespace {

// Calls visit(first column, row of the norm's weight) for each group of columns.
template <typename Visit>
void for_each_group(ConstMatrixView x, ConstMatrixView weight, const Visit& visit) {
  for (int64_t first = 0; first < x.cols; first += weight.cols) visit(first, first / weight.cols % weight.rows);
}

}  // namespace

void reference(const RmsNorm& op) {
  for (int64_t i = 0; i < op.x.rows; ++i) {
    for_each_group(op.x, op.weight, [&](int64_t first, int64_t row) {
      double squares = 0;
      for (const double value : load_row(op.x.col_range(first, op.weight.cols), i)) squares += value * value;
      const double norm = std::sqrt(squares / static_cast<double>(op.weight.cols) + op.eps);
      for (int64_t j = 0; j < op.weight.cols; ++j)
        store(op.y, i, first + j, load(op.x, i, first + j) / norm * load(op.weight, row, j));
    });
  }
}

void reference(const LayerNorm& op) {
  const auto width = static_cast<double>(op.weight.cols);
  for (int64_t i = 0; i < op.x.rows; ++i) {
    for_each_group(op.x, op.weight, [&](int64_t first, int64_t row) {
      const std::vector<double> values = load_row(op.x.col_range(first, op.weight.cols), i);
      double mean = 0, squares = 0;
      for (const double value : values) mean += value / width;
      for (const double value : values) squares += (value - mean) * (value - mean);
      const double deviation = std::sqrt(squares / width + op.eps);
      for (int64_t j = 0; j < op.weight.cols; ++j) {
        const double shift = op.bias.empty() ? 0 : load(op.bias, row, j);
        store(op.y, i, first + j, (values[j] - mean) / deviation * load(op.weight, row, j) + shift);
      }
    });
  }
}

}  // namespace gptq::ops
