#include "ops/copies.h"

#include <algorithm>
#include <cstring>

#include "ops/elements.h"

namespace gptq::ops {

void reference(const GatherRows& op) {
  for (int64_t i = 0; i < op.y.rows; ++i) {
    for (int64_t j = 0; j < op.y.cols; ++j) store(op.y, i, j, load(op.table, op.ids[i], j));
  }
}

void reference(const GatherColumns& op) {
  for (int64_t i = 0; i < op.y.rows; ++i) {
    for (int64_t j = 0; j < op.y.cols; ++j) {
      const ConstMatrixView from = op.x.block(i, 1, op.ids[j], 1);
      std::memcpy(op.y.block(i, 1, j, 1).data, from.data, size_of(from.dtype));
    }
  }
}

void reference(const Convert& op) {
  for (int64_t i = 0; i < op.y.rows; ++i) {
    for (int64_t j = 0; j < op.y.cols; ++j) store(op.y, i, j, load(op.x, i, j));
  }
}

void reference(const Clear& op) {
  for (int64_t i = 0; i < op.y.rows; ++i) {
    auto* row = static_cast<std::byte*>(op.y.row_range(i, 1).data);
    std::fill(row, row + op.y.cols * static_cast<int64_t>(size_of(op.y.dtype)), std::byte{0});
  }
}

}  // namespace gptq::ops
