// Columns of projections, picked by their numbers; and a column times a row.
#pragma once

#include <vector>

#include "backend/backend.h"

namespace gptq {

// Adds `count` neighbouring columns from `first` on.
inline void add_columns(std::vector<int32_t>& to, int64_t first, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to.push_back(static_cast<int32_t>(first + i));
}

// These columns of x, in a matrix of their own.
inline Matrix gather(Backend& backend, ConstMatrixView x, const std::vector<int32_t>& ids) {
  Matrix y(backend, x.dtype, x.rows, static_cast<int64_t>(ids.size()));
  backend.run(ops::GatherColumns{.x = x, .ids = ids, .y = y});
  return y;
}

// y[r, c] = column[r] row[c].   column [rows, 1], row [1, cols] f32
inline Matrix outer_product(Backend& backend, DType dtype, ConstMatrixView column, ConstMatrixView row) {
  Matrix y(backend, dtype, column.rows, row.cols);
  backend.run(ops::Linear{.x = column, .w = ConstMatrixView(row.data, row.dtype, row.cols, 1), .bias = {}, .y = y});
  return y;
}

// A matrix of ones on a device.
inline Matrix ones(Backend& backend, int64_t rows, int64_t cols) {
  const std::vector<float> values(static_cast<size_t>(rows * cols), 1.0F);
  return to_device(backend, DType::f32, rows, cols, values.data());
}

}  // namespace gptq
