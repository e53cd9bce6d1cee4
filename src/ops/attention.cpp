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

}  // namespace

void reference(const Attention& op) {
  const int64_t width = op.shape.head_dim;
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) {
    for (int64_t head = 0; head < op.shape.heads; ++head) {
      const int64_t column = head * width, kv_column = head / (op.shape.heads / op.shape.kv_heads) * width;
      for (int64_t row = op.offsets[s]; row < op.offsets[s + 1]; ++row) {
        std::vector<double> scores;
        for (int64_t key = op.offsets[s]; key <= row; ++key) {
          double sum = 0;
          for (int64_t d = 0; d < width; ++d) sum += load(op.q, row, column + d) * load(op.k, key, kv_column + d);
          sum *= op.shape.scale;
          if (op.shape.soft_cap > 0) sum = op.shape.soft_cap * std::tanh(sum / op.shape.soft_cap);
          if (!op.shape.slopes.empty()) sum += load(op.shape.slopes, 0, head) * static_cast<double>(key - row);
          scores.push_back(sees(op.shape, row - op.offsets[s], key - op.offsets[s]) ? sum : -INFINITY);
        }
        if (!op.shape.sinks.empty()) scores.push_back(load(op.shape.sinks, 0, head));
        log_softmax(scores);
        for (int64_t d = 0; d < width; ++d) {
          double sum = 0;
          for (int64_t key = op.offsets[s]; key <= row; ++key) {
            sum += std::exp(scores[key - op.offsets[s]]) * load(op.v, key, kv_column + d);
          }
          store(op.y, row, column + d, sum);
        }
      }
    }
  }
}

}  // namespace gptq::ops
