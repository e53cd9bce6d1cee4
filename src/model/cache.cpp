#include "model/cache.h"

#include <algorithm>
#include <utility>

namespace gptq {

ConstMatrixView CachedRows::append(Backend& backend, int64_t kept, ConstMatrixView rows) {
  constexpr int64_t kLeast = 256;
  const int64_t all = kept + rows.rows;
  if (all > rows_.rows()) {
    Matrix larger(backend, rows.dtype, std::max({all, 2 * rows_.rows(), kLeast}), rows.cols);
    if (kept > 0)
      backend.run(ops::Convert{.x = rows_.view().row_range(0, kept), .y = larger.view().row_range(0, kept)});
    rows_ = std::move(larger);
  }
  backend.run(ops::Convert{.x = rows, .y = rows_.view().row_range(kept, rows.rows)});
  return rows_.view().row_range(0, all);
}

}  // namespace gptq
