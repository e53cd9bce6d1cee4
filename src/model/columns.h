// Columns of projections, picked by their numbers.
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

}  // namespace gptq
