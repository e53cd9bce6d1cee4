#include "ops/attention.h"

#include <cmath>
#include <vector>

#include "ops/elements.h"

namespace gptq::ops {
namespace {

bool sees(const AttentionShape& shape, int64_t query, int64_t key) {
  return key <= query && (shape.window == 0 || query - key < shape.window) &&
         (shape.chunk == 0 || query / shape.chunk == key / shape.chunk);
}

// One sequence: its last queries.
void attend(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, const AttentionShape& shape, MatrixView y) {
  const int64_t width = shape.head_dim, earlier = k.rows - q.rows;
  for (int64_t head = 0; head < shape.heads; ++head) {
    const int64_t column = head * width, kv_column = head / (shape.heads / shape.kv_heads) * width;
    for (int64_t row = 0; row < q.rows; ++row) {
      const int64_t query = earlier + row;
      std::vector<double> scores;
      for (int64_t key = 0; key <= query; ++key) {
        double sum = 0;
        for (int64_t d = 0; d < width; ++d) sum += load(q, row, column + d) * load(k, key, kv_column + d);
        sum *= shape.scale;
        if (shape.soft_cap > 0) sum = shape.soft_cap * std::tanh(sum / shape.soft_cap);
        if (!shape.slopes.empty()) sum += load(shape.slopes, 0, head) * static_cast<double>(key - query);
        scores.push_back(sees(shape, query, key) ? sum : -INFINITY);
      }
      if (!shape.sinks.empty()) scores.push_back(load(shape.sinks, 0, head));
      log_softmax(scores);
      for (int64_t d = 0; d < width; ++d) {
        double sum = 0;
        for (int64_t key = 0; key <= query; ++key)
          sum += std::exp(scores[static_cast<size_t>(key)]) * load(v, key, kv_column + d);
        store(y, row, column + d, sum);
      }
    }
  }
}

}  // namespace

void reference(const Attention& op) {
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) {
    const int64_t first = op.offsets[s], count = op.offsets[s + 1] - first;
    attend(op.q.row_range(first, count), op.k.row_range(first, count), op.v.row_range(first, count), op.shape,
           op.y.row_range(first, count));
  }
}

void reference(const CachedAttention& op) { attend(op.q, op.k, op.v, op.shape, op.y); }

}  // namespace gptq::ops
