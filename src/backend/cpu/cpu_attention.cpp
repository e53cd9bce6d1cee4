// Causal attention without a matrix of scores: a task takes some queries of the heads that share a key head, and goes
// over the keys in blocks. A block's scores are exponentiated against the largest so far and multiplied with its values
// at once; when a later block has a larger one, what was summed is scaled down (Dao et al. 2022, FlashAttention). Tiles
// that no query of theirs sees are skipped.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/operands.h"

namespace gptq {
namespace {

constexpr int64_t kRows = 192;     // of a task: queries times heads
constexpr int64_t kBlock = 1024;   // keys whose scores are held at a time
constexpr int64_t kLane = 16;      // scores are exponentiated in multiples of it
constexpr int64_t kScores = 1040;  // floats of a row of scores: off the powers of two

constexpr float kUnseen = -std::numeric_limits<float>::infinity();

// Keys [first, end), counted from a sequence's start.
struct KeyRange {
  int64_t first, end;
};

// What queries first .. last of a sequence see.
KeyRange seen(const AttentionShape& shape, int64_t first, int64_t last) {
  const int64_t in_window = shape.window == 0 ? 0 : first - shape.window + 1;
  return {std::max<int64_t>({0, in_window, shape.chunk == 0 ? 0 : first / shape.chunk * shape.chunk}), last + 1};
}
KeyRange common(KeyRange a, KeyRange b) { return {std::max(a.first, b.first), std::min(a.end, b.end)}; }

}  // namespace

// Keys and values of the sequences, packed as right operands: panels of keys, and of the elements of values.
struct CpuBackend::PackedKeys {
  struct Head {
    uint32_t *keys, *values;
    int64_t value_dwords;  // of one panel
  };
  std::vector<Head> heads;  // [sequences, kv heads]
};

// Some queries of a sequence, counted from its start, in all heads of one key head. Row r is query first_query + r /
// heads of head r % heads.
struct CpuBackend::AttentionTask {
  int64_t first_token, sequence, kv_head, first_query, queries;
};

CpuBackend::PackedKeys CpuBackend::pack_keys(const ProductKernel& kernel, ConstMatrixView k, ConstMatrixView v,
                                             SequenceOffsets offsets, const AttentionShape& shape,
                                             ScratchPool::Lease& room) {
  const int64_t width = shape.head_dim, dwords = kernel.dwords_of(width);
  PackedKeys packed;
  struct Piece {                              // of a key head: a task
    int64_t token, first_key, keys, kv_head;  // token: the first key's row
    PackedKeys::Head to;
  };
  std::vector<Piece> pieces;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t keys = offsets[s + 1] - offsets[s], value_dwords = kernel.dwords_of(keys);
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      auto* of_keys = reinterpret_cast<uint32_t*>(room.take(rounded_up(keys, kernel.cols) * dwords));
      auto* of_values = reinterpret_cast<uint32_t*>(room.take(rounded_up(width, kernel.cols) * value_dwords));
      packed.heads.push_back({of_keys, of_values, value_dwords});
      for (int64_t key = 0; key < keys; key += kBlock)
        pieces.push_back({offsets[s] + key, key, std::min(kBlock, keys - key), head, packed.heads.back()});
    }
  }
  pool_.for_each(static_cast<int64_t>(pieces.size()), [&](int64_t task) {
    const Piece& piece = pieces[static_cast<size_t>(task)];
    const int64_t col = piece.kv_head * width;
    for (int64_t key = 0; key < piece.keys; key += kernel.cols) {
      const int64_t count = std::min(kernel.cols, piece.keys - key);
      pack_b(kernel, k.block(piece.token + key, count, col, width), piece.to.keys + (piece.first_key + key) * dwords);
    }
    ConstMatrixView values = v.block(piece.token, piece.keys, col, width);
    const bool is_narrow = !is_packable(kernel, v.dtype);
    ScratchPool::Lease lease = scratch_.borrow(is_narrow ? values.size() : 0);
    if (is_narrow) values = wide_rows(values, lease.take(values.size()));
    for (int64_t i = 0; i < width; i += kernel.cols) {
      pack_columns(kernel, values.col_range(i, std::min(kernel.cols, width - i)), kernel.dwords_of(piece.keys),
                   kernel.cols,
                   piece.to.values + i * piece.to.value_dwords + piece.first_key / kernel.k_per_dword * kernel.cols);
    }
  });
  return packed;
}

void CpuBackend::attention(ConstMatrixView q, ConstMatrixView k, ConstMatrixView v, SequenceOffsets offsets,
                           const AttentionShape& shape, MatrixView y) {
  if (y.empty()) return;
  const ProductKernel& kernel = v.dtype == q.dtype ? product_kernel(q, k) : products_.f32;
  const int64_t width = shape.head_dim, dwords = kernel.dwords_of(width), heads = shape.heads / shape.kv_heads;
  const int64_t queries_at_once = std::max<int64_t>(1, kRows / heads);
  std::vector<AttentionTask> tasks;
  int64_t packed_dwords = 0;
  for (int64_t s = 0; s + 1 < static_cast<int64_t>(offsets.size()); ++s) {
    const int64_t first = offsets[static_cast<size_t>(s)], tokens = offsets[static_cast<size_t>(s) + 1] - first;
    packed_dwords += shape.kv_heads * (rounded_up(tokens, kernel.cols) * dwords + 16 +
                                       rounded_up(width, kernel.cols) * kernel.dwords_of(tokens) + 16);
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      for (int64_t query = 0; query < tokens; query += queries_at_once)
        tasks.push_back({first, s, head, query, std::min(queries_at_once, tokens - query)});
    }
  }
  // The longest first, so that threads end together.
  const auto keys_of = [&](const AttentionTask& task) {
    return task.first_query + task.queries - seen(shape, task.first_query, task.first_query).first;
  };
  std::stable_sort(tasks.begin(), tasks.end(), [&](const auto& a, const auto& b) { return keys_of(a) > keys_of(b); });

  ScratchPool::Lease key_room = scratch_.borrow(packed_dwords);
  const PackedKeys packed = pack_keys(kernel, k, v, offsets, shape, key_room);
  pool_.for_each(static_cast<int64_t>(tasks.size()),
                 [&](int64_t index) { attend(kernel, q, packed, shape, tasks[static_cast<size_t>(index)], y); });
}

void CpuBackend::attend(const ProductKernel& kernel, ConstMatrixView q, const PackedKeys& packed,
                        const AttentionShape& shape, const AttentionTask& task, MatrixView y) {
  const auto [first_token, sequence, kv_head, first_query, queries] = task;
  const int64_t width = shape.head_dim, dwords = kernel.dwords_of(width), heads = shape.heads / shape.kv_heads;
  const int64_t rows = queries * heads, all_rows = rounded_up(rows, kernel.rows),
                unit = kernel.k_per_dword * kernel.step;
  const int64_t wide = rounded_up(width, kernel.cols), first_head = kv_head * heads;
  const PackedKeys::Head& packed_head = packed.heads[static_cast<size_t>(sequence * shape.kv_heads + kv_head)];
  ScratchPool::Lease lease =
      scratch_.borrow(all_rows * (width + wide) + kernel.rows * kScores + (all_rows + 1) * (dwords + 16), 4);
  float* stacked = lease.take(rows * width);
  float* const scores = lease.take(kernel.rows * kScores);
  float* const sums = lease.take(all_rows * wide);
  const MatrixView stacked_rows(stacked, dtype_of(kernel), rows, width);
  // The heads of a query are neighbours both in q and y and among the rows.
  const ConstMatrixView from = q.block(first_token + first_query, queries, first_head * width, heads * width);
  const MatrixView stacked_queries(stacked, stacked_rows.dtype, queries, heads * width);
  for (int64_t query = 0; query < queries; ++query) {
    if (stacked_rows.dtype == q.dtype) {
      std::memcpy(stacked_queries.row_range(query, 1).data, from.row_range(query, 1).data,
                  static_cast<size_t>(heads * width) * size_of(q.dtype));
    } else {
      as_f32(from, query, stacked_queries.row<float>(query));
    }
  }
  const APanels a = pack_a(kernel, stacked_rows, reinterpret_cast<uint32_t*>(lease.take(a_room(kernel, stacked_rows))));
  std::fill_n(sums, all_rows * wide, 0.0F);
  std::vector<RunningSoftmax> softmax;
  std::vector<KeyRange> seen_by;  // each row; those that fill the last panel up see what the last one sees
  softmax.reserve(static_cast<size_t>(rows));
  seen_by.reserve(static_cast<size_t>(all_rows));
  for (int64_t query = first_query; query < first_query + queries; ++query)
    seen_by.insert(seen_by.end(), static_cast<size_t>(heads), seen(shape, query, query));
  seen_by.resize(static_cast<size_t>(all_rows), seen_by.back());
  const auto soften = kernel.k_per_dword == 2 ? kernels_.soften_bf16 : kernels_.soften;
  for (int64_t r = 0; r < rows; ++r) {
    const bool has_sink = !shape.sinks.empty();
    softmax.push_back({.top = has_sink ? shape.sinks.row<float>(0)[first_head + r % heads] : kUnseen,
                       .weight = has_sink ? 1.0F : 0.0F,
                       .sums = sums + r * wide,
                       .width = wide});
  }

  const KeyRange all{seen_by.front().first, seen_by.back().end};
  products_.configure_tiles();
  for (int64_t start = all.first / kBlock * kBlock; start < all.end; start += kBlock) {
    const KeyRange block{start, start + kBlock};
    const auto of_panel = [&](int64_t row) {  // the keys of this block that rows of the panel see
      return common(block,
                    {seen_by[static_cast<size_t>(row)].first, seen_by[static_cast<size_t>(row + kernel.rows - 1)].end});
    };
    for (int64_t panel = 0; panel < all_rows; panel += kernel.rows) {
      const KeyRange keys = of_panel(panel);
      if (keys.first >= keys.end) continue;
      const int64_t first_key = keys.first / kernel.cols * kernel.cols;
      kernel.multiply_across({.dwords = dwords,
                              .a = a.data + panel / kernel.rows * a.panel_stride,
                              .row_stride = a.row_stride,
                              .step_stride = a.step_stride,
                              .b = packed_head.keys + first_key * dwords},
                             pieces_of(keys.end - first_key, kernel.cols), scores + first_key - start, kScores);
      const int64_t from = keys.first / unit * unit - start, end = rounded_up(keys.end, unit) - start;
      // Whole vectors of scores; their probabilities are written over them from the first on.
      const int64_t first_score = from / kLane * kLane, end_score = rounded_up(end, kLane);
      float* const probabilities = scores + first_score + (from - first_score) / kernel.k_per_dword;
      for (int64_t row = panel; row < std::min(panel + kernel.rows, rows); ++row) {
        const KeyRange of_row = common(block, seen_by[static_cast<size_t>(row)]);
        const int64_t first = of_row.first - start, last = of_row.end - start;
        float* line = scores + (row - panel) * kScores;
        if (first >= last) {  // a window or chunk ends between the rows of a panel
          std::fill_n(probabilities + (row - panel) * kScores, (end - from) / kernel.k_per_dword, 0.0F);
          continue;
        }
        float factor = shape.scale;
        if (factor <= 0 || shape.soft_cap > 0 || !shape.slopes.empty()) {
          kernels_.scale(line + first, factor, line + first, last - first);
          factor = 1;
          if (shape.soft_cap > 0) kernels_.soft_cap(shape.soft_cap, line + first, last - first);
          if (!shape.slopes.empty()) {
            const int64_t query = seen_by[static_cast<size_t>(row)].end - 1;
            kernels_.add_line(line + first, static_cast<float>(of_row.first - query),
                              shape.slopes.row<float>(0)[first_head + row % heads], last - first);
          }
        }
        std::fill(line + first_score, line + first, kUnseen);
        std::fill(line + last, line + end_score, kUnseen);
        soften(line + first_score, end_score - first_score, factor, softmax[static_cast<size_t>(row)]);
      }
      for (int64_t col = 0; col < wide; col += kernel.cols) {
        kernel.multiply({.dwords = (end - from) / kernel.k_per_dword,
                         .a = reinterpret_cast<const uint32_t*>(probabilities),
                         .row_stride = kScores,
                         .step_stride = kernel.step,
                         .b = packed_head.values + col * packed_head.value_dwords +
                              (start + from) / kernel.k_per_dword * kernel.cols},
                        sums + panel * wide + col, wide, true);
      }
    }
  }
  products_.release_tiles();
  const MatrixView to = y.block(first_token + first_query, queries, first_head * width, heads * width);
  for (int64_t query = 0; query < queries; ++query) {
    float* row = begin_row(to, query, stacked);
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t r = query * heads + head;
      kernels_.scale(sums + r * wide, 1 / softmax[static_cast<size_t>(r)].weight, row + head * width, width);
    }
    finish_row(row, to, query);
  }
}

}  // namespace gptq
