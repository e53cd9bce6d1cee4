// Causal attention, one tile of queries at a time: scores [queries, keys up to the last query] by sgemm, softmax row by
// row, values by sgemm. No [n, n] matrix exists; keys above the diagonal are skipped but for the tile's own corner, and
// those that no query of the tile sees.
#include <algorithm>
#include <cmath>
#include <vector>

#include <cblas.h>

#include "backend/cpu/cpu_backend.h"

namespace gptq {
namespace {

// Queries of one tile: more would compute more of the corner above the diagonal, fewer would make flat products.
constexpr int64_t kQueries = 64;
// Query heads of one key head that are stacked into one product, to read the keys once for all.
constexpr int64_t kStackedHeads = 4;

struct Task {
  int64_t sequence_start, first_query, queries;
  int64_t first_key;          // the first that one of the queries sees
  int64_t first_head, heads;  // query heads, all of one key head
};

// The first key that a query sees, both counted from their sequence's start.
int64_t first_seen(const AttentionShape& shape, int64_t query) {
  const int64_t in_window = shape.window == 0 ? 0 : query - shape.window + 1;
  return std::max<int64_t>({0, in_window, shape.chunk == 0 ? 0 : query / shape.chunk * shape.chunk});
}

}  // namespace

void CpuBackend::attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, SequenceOffsets offsets,
                           const AttentionShape& shape, MatrixView y) {
  const int64_t width = shape.head_dim, heads_per_key = shape.heads / std::max<int64_t>(shape.kv_heads, 1);
  std::vector<Task> tasks;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int64_t query = offsets[s]; query < offsets[s + 1]; query += kQueries) {
      for (int64_t head = 0; head < shape.heads;) {
        const int64_t group_end = (head / heads_per_key + 1) * heads_per_key;
        const int64_t heads = std::min(kStackedHeads, group_end - head);
        tasks.push_back({offsets[s], query, std::min(kQueries, offsets[s + 1] - query),
                         offsets[s] + first_seen(shape, query - offsets[s]), head, heads});
        head += heads;
      }
    }
  }
  // The longest tiles first, so that threads end together.
  const auto keys_of = [](const Task& task) { return task.first_query + task.queries - task.first_key; };
  std::stable_sort(tasks.begin(), tasks.end(), [&](const Task& a, const Task& b) { return keys_of(a) > keys_of(b); });

  pool_.for_each(static_cast<int64_t>(tasks.size()), [&](int64_t index) {
    const Task& task = tasks[index];
    const int64_t keys = keys_of(task), rows = task.heads * task.queries;
    const int64_t key_column = task.first_head / heads_per_key * width;
    const ConstMatrixView task_k = k.block(task.first_key, keys, key_column, width);
    const ConstMatrixView task_v = v.block(task.first_key, keys, key_column, width);
    const bool widen_k = k.dtype != DType::f32, widen_v = v.dtype != DType::f32;

    ScratchPool::Lease lease =
        scratch_.borrow((2 * rows + (widen_k ? keys : 0) + (widen_v ? keys : 0)) * width + rows * keys, 5);
    float *stacked = lease.take(rows * width), *result = lease.take(rows * width), *scores = lease.take(rows * keys);
    const auto as_wide = [&](ConstMatrixView part) {
      if (part.dtype == DType::f32) return part;
      float* wide = lease.take(part.size());
      for (int64_t r = 0; r < part.rows; ++r) as_f32(part, r, wide + r * part.cols);
      return ConstMatrixView(wide, DType::f32, part.rows, part.cols);
    };
    const ConstMatrixView wide_k = as_wide(task_k), wide_v = as_wide(task_v);

    for (int64_t head = 0; head < task.heads; ++head) {  // row head * queries + i is query i of that head
      const ConstMatrixView part = q.block(task.first_query, task.queries, (task.first_head + head) * width, width);
      for (int64_t i = 0; i < task.queries; ++i) {
        float* to = stacked + (head * task.queries + i) * width;
        const float* values = as_f32(part, i, to);
        if (values != to) std::copy_n(values, width, to);
      }
    }
    const auto m = static_cast<blasint>(rows), n = static_cast<blasint>(keys), d = static_cast<blasint>(width);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, d, shape.scale, stacked, d, wide_k.row<float>(0),
                static_cast<blasint>(wide_k.stride), 0, scores, n);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = scores + r * keys;
      const int64_t head = task.first_head + r / task.queries, before = task.first_key - task.sequence_start;
      const int64_t query = keys - task.queries + r % task.queries;  // as keys are counted in this tile
      const int64_t first = first_seen(shape, before + query) - before, seen = query + 1 - first;
      if (shape.soft_cap > 0) kernels_.soft_cap(shape.soft_cap, row + first, seen);
      if (!shape.slopes.empty())
        kernels_.add_line(row + first, static_cast<float>(first - query), shape.slopes.row<float>(0)[head], seen);
      float top = kernels_.maximum(row + first, seen), sum = 0;
      if (!shape.sinks.empty()) {
        const float sink = shape.sinks.row<float>(0)[head];
        top = std::max(top, sink);
        sum = std::exp(sink - top);
      }
      sum += kernels_.exponentials(row + first, top, seen);
      std::fill(row, row + first, 0.0F);
      std::fill(row + query + 1, row + keys, 0.0F);
      stacked[r] = 1 / sum;  // the queries are no longer needed
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, m, d, n, 1, scores, n, wide_v.row<float>(0),
                static_cast<blasint>(wide_v.stride), 0, result, d);
    for (int64_t head = 0; head < task.heads; ++head) {
      const MatrixView part = y.block(task.first_query, task.queries, (task.first_head + head) * width, width);
      for (int64_t i = 0; i < task.queries; ++i) {
        const int64_t r = head * task.queries + i;
        float* row = begin_row(part, i, result + r * width);
        kernels_.scale(result + r * width, stacked[r], row, width);
        finish_row(row, part, i);
      }
    }
  });
}

}  // namespace gptq
