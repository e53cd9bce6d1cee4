// Causal attention without a matrix of scores (Dao et al. 2022, FlashAttention): a task takes some queries of the heads
// that share a key head, and goes over the keys in blocks. The scores of a block are exponentiated against the largest
// so far and multiplied by its values at once; when a later block has a larger score, the sums are scaled down. Tiles
// of keys that none of the queries see are skipped.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "backend/cpu/narrow_kernels.h"
#include "backend/cpu/products.h"

namespace gptq::cpu {
namespace {

constexpr int64_t kRows = 192;     // of a task: queries times heads
constexpr int64_t kBlock = 1024;   // keys whose scores are held at a time
constexpr int64_t kLane = 16;      // scores are exponentiated in multiples of it
constexpr int64_t kScores = 1040;  // floats of a row of scores: no power of two

constexpr float kUnseen = -std::numeric_limits<float>::infinity();

// Keys [first, end), counted from a sequence's start.
struct KeyRange {
  int64_t first, end;
};

// Keys that queries first .. last of a sequence see.
KeyRange seen(const AttentionShape& shape, int64_t first, int64_t last) {
  const int64_t in_window = shape.window == 0 ? 0 : first - shape.window + 1;
  return {std::max<int64_t>({0, in_window, shape.chunk == 0 ? 0 : first / shape.chunk * shape.chunk}), last + 1};
}
KeyRange common(KeyRange a, KeyRange b) { return {std::max(a.first, b.first), std::min(a.end, b.end)}; }

// Keys and values of the sequences, packed as B operands: panels of keys, and of the elements of values.
struct PackedKeys {
  struct Head {
    uint32_t *keys, *values;
    int64_t value_dwords;  // of one panel
  };
  std::vector<Head> heads;  // [sequences, kv heads]
};

// Some queries of a sequence, counted from its start, for all heads of one key head. Row r is query first_query + r /
// heads of head r % heads.
struct AttentionTask {
  int64_t first_token, sequence, kv_head, first_query, queries;
};

PackedKeys pack_keys(CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView k, ConstMatrixView v,
                     SequenceOffsets offsets, const AttentionShape& shape, ScratchPool::Lease& room) {
  const int64_t width = shape.head_dim, dwords = kernel.dwords_of(width);
  PackedKeys packed;
  struct Piece {                              // of a key head: one task
    int64_t token, first_key, keys, kv_head;  // token: row of the first key
    PackedKeys::Head to;
  };
  std::vector<Piece> pieces;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t keys = offsets[s + 1] - offsets[s], value_dwords = kernel.dwords_of(keys);
    for (int64_t head = 0; head < shape.kv_heads; ++head) {
      auto* of_keys = room.take_dwords(rounded_up(keys, kernel.cols) * dwords);
      auto* of_values = room.take_dwords(rounded_up(width, kernel.cols) * value_dwords);
      packed.heads.push_back({of_keys, of_values, value_dwords});
      for (int64_t key = 0; key < keys; key += kBlock)
        pieces.push_back({offsets[s] + key, key, std::min(kBlock, keys - key), head, packed.heads.back()});
    }
  }
  cpu.pool.for_each(static_cast<int64_t>(pieces.size()), [&](int64_t task) {
    const Piece& piece = pieces[static_cast<size_t>(task)];
    const int64_t col = piece.kv_head * width;
    for (int64_t key = 0; key < piece.keys; key += kernel.cols) {
      const int64_t count = std::min(kernel.cols, piece.keys - key);
      pack_b(cpu, kernel, k.block(piece.token + key, count, col, width),
             piece.to.keys + (piece.first_key + key) * dwords);
    }
    ConstMatrixView values = v.block(piece.token, piece.keys, col, width);
    const bool is_narrow = !is_packable(kernel, v.dtype);
    ScratchPool::Lease lease = cpu.scratch.borrow(is_narrow ? values.size() : 0);
    if (is_narrow) values = wide_rows(cpu, values, lease.take(values.size()));
    for (int64_t i = 0; i < width; i += kernel.cols) {
      pack_columns(cpu, kernel, values.col_range(i, std::min(kernel.cols, width - i)), kernel.dwords_of(piece.keys),
                   kernel.cols,
                   piece.to.values + i * piece.to.value_dwords + piece.first_key / kernel.k_per_dword * kernel.cols);
    }
  });
  return packed;
}

// The rows of a task's A panels and of its sums: queries times heads.
struct TaskRows {
  const ProductKernel& kernel;
  const AttentionShape& shape;
  const AttentionTask& task;
  int64_t heads = shape.heads / shape.kv_heads, first_head = task.kv_head * heads;
  int64_t rows = task.queries * heads, all_rows = rounded_up(rows, kernel.rows);
  int64_t wide = rounded_up(shape.head_dim, kernel.cols);
  std::vector<KeyRange> seen_by;  // each row; rows that fill the last panel see the same as the last one
  std::vector<RunningSoftmax> softmax;

  TaskRows(const ProductKernel& kernel, const AttentionShape& shape, const AttentionTask& task, float* sums)
      : kernel(kernel), shape(shape), task(task) {
    softmax.reserve(static_cast<size_t>(rows));
    seen_by.reserve(static_cast<size_t>(all_rows));
    for (int64_t query = task.first_query; query < task.first_query + task.queries; ++query)
      seen_by.insert(seen_by.end(), static_cast<size_t>(heads), seen(shape, query, query));
    seen_by.resize(static_cast<size_t>(all_rows), seen_by.back());
    const bool has_sinks = !shape.sinks.empty();
    for (int64_t r = 0; r < rows; ++r) {
      softmax.push_back({.top = has_sinks ? shape.sinks.row<float>(0)[first_head + r % heads] : kUnseen,
                         .weight = has_sinks ? 1.0F : 0.0F,
                         .sums = sums + r * wide,
                         .width = wide});
    }
  }
  // Keys of `block` that rows of the panel starting at `row` see.
  KeyRange seen_by_panel(KeyRange block, int64_t row) const {
    return common(block,
                  {seen_by[static_cast<size_t>(row)].first, seen_by[static_cast<size_t>(row + kernel.rows - 1)].end});
  }
};

// Copies the queries of a task, row by row, in the kernel's dtype. The heads of a query are next to each other in
// `from` and among the rows.
void copy_queries(const CpuBackend& cpu, ConstMatrixView from, MatrixView to) {
  for (int64_t query = 0; query < from.rows; ++query) {
    if (to.dtype == from.dtype) {
      std::memcpy(to.row_range(query, 1).data, from.row_range(query, 1).data,
                  static_cast<size_t>(from.cols) * size_of(from.dtype));
    } else {
      cpu.as_f32(from, query, to.row<float>(query));
    }
  }
}

// Applies what the shape says to the products of a head's query, which sees `keys`, at `scores`. Returns the factor
// that remains to multiply them by.
float modify_scores(const CpuBackend& cpu, const AttentionShape& shape, int64_t head, int64_t query, KeyRange keys,
                    float* scores) {
  if (shape.scale > 0 && !(shape.soft_cap > 0) && shape.slopes.empty()) return shape.scale;
  const int64_t count = keys.end - keys.first;
  cpu.kernels.scale(scores, shape.scale, scores, count);
  if (shape.soft_cap > 0) cpu.kernels.soft_cap(shape.soft_cap, scores, count);
  if (!shape.slopes.empty())
    cpu.kernels.add_line(scores, static_cast<float>(keys.first - query), shape.slopes.row<float>(0)[head], count);
  return 1;
}

// One A panel, whose first row is `panel`, and one block of keys: scores, probabilities, and their products with
// values.
void attend_block(const CpuBackend& cpu, TaskRows& rows, const PackedKeys::Head& head, const uint32_t* a,
                  const APanels& panels, int64_t panel, KeyRange block, float* scores, float* sums) {
  const ProductKernel& kernel = rows.kernel;
  const KeyRange keys = rows.seen_by_panel(block, panel);
  if (keys.first >= keys.end) return;
  const int64_t dwords = kernel.dwords_of(rows.shape.head_dim), unit = kernel.k_per_dword * kernel.step;
  const int64_t start = block.first, first_key = keys.first / kernel.cols * kernel.cols;
  kernel.multiply_across({.dwords = dwords,
                          .a = a,
                          .row_stride = panels.row_stride,
                          .step_stride = panels.step_stride,
                          .b = head.keys + first_key * dwords},
                         pieces_of(keys.end - first_key, kernel.cols), scores + first_key - start, kScores);
  const int64_t from = keys.first / unit * unit - start, end = rounded_up(keys.end, unit) - start;
  // Whole vectors of scores; their probabilities are written over them from the first on.
  const int64_t first_score = from / kLane * kLane, end_score = rounded_up(end, kLane);
  float* const probabilities = scores + first_score + (from - first_score) / kernel.k_per_dword;
  const auto soften = kernel.k_per_dword == 2 ? cpu.kernels.soften_bf16 : cpu.kernels.soften;
  for (int64_t row = panel; row < std::min(panel + kernel.rows, rows.rows); ++row) {
    const KeyRange of_row = common(block, rows.seen_by[static_cast<size_t>(row)]);
    const int64_t first = of_row.first - start, last = of_row.end - start;
    float* line = scores + (row - panel) * kScores;
    if (first >= last) {  // a window or chunk ends between the rows of a panel
      std::fill_n(probabilities + (row - panel) * kScores, (end - from) / kernel.k_per_dword, 0.0F);
      continue;
    }
    const int64_t query = rows.seen_by[static_cast<size_t>(row)].end - 1;
    const float factor =
        modify_scores(cpu, rows.shape, rows.first_head + row % rows.heads, query, of_row, line + first);
    std::fill(line + first_score, line + first, kUnseen);
    std::fill(line + last, line + end_score, kUnseen);
    soften(line + first_score, end_score - first_score, factor, rows.softmax[static_cast<size_t>(row)]);
  }
  for (int64_t col = 0; col < rows.wide; col += kernel.cols) {
    kernel.multiply({.dwords = (end - from) / kernel.k_per_dword,
                     .a = reinterpret_cast<const uint32_t*>(probabilities),
                     .row_stride = kScores,
                     .step_stride = kernel.step,
                     .b = head.values + col * head.value_dwords + (start + from) / kernel.k_per_dword * kernel.cols},
                    sums + panel * rows.wide + col, rows.wide, true);
  }
}

void attend(CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView q, const PackedKeys& packed,
            const AttentionShape& shape, const AttentionTask& task, MatrixView y) {
  const int64_t width = shape.head_dim, heads = shape.heads / shape.kv_heads;
  const int64_t row_count = task.queries * heads, all_rows = rounded_up(row_count, kernel.rows),
                wide = rounded_up(width, kernel.cols);
  ScratchPool::Lease lease = cpu.scratch.borrow(
      all_rows * (width + wide) + kernel.rows * kScores + (all_rows + 1) * (kernel.dwords_of(width) + 16), 4);
  float* const stacked = lease.take(row_count * width);
  float* const scores = lease.take(kernel.rows * kScores);
  float* const sums = lease.take(all_rows * wide);
  const MatrixView stacked_rows(stacked, dtype_of(kernel), row_count, width);
  const int64_t first_row = task.first_token + task.first_query, first_col = task.kv_head * heads * width;
  copy_queries(cpu, q.block(first_row, task.queries, first_col, heads * width),
               {stacked, stacked_rows.dtype, task.queries, heads * width});
  const APanels a = pack_a(cpu, kernel, stacked_rows, lease.take_dwords(a_room(kernel, stacked_rows)));
  std::fill_n(sums, all_rows * wide, 0.0F);
  TaskRows rows(kernel, shape, task, sums);

  const PackedKeys::Head& head = packed.heads[static_cast<size_t>(task.sequence * shape.kv_heads + task.kv_head)];
  const KeyRange all{rows.seen_by.front().first, rows.seen_by.back().end};
  cpu.products.configure_tiles();
  for (int64_t start = all.first / kBlock * kBlock; start < all.end; start += kBlock) {
    for (int64_t panel = 0; panel < all_rows; panel += kernel.rows) {
      attend_block(cpu, rows, head, a.data + panel / kernel.rows * a.panel_stride, a, panel, {start, start + kBlock},
                   scores, sums);
    }
  }
  cpu.products.release_tiles();

  const MatrixView to = y.block(first_row, task.queries, first_col, heads * width);
  for (int64_t query = 0; query < task.queries; ++query) {
    float* row = cpu.begin_row(to, query, stacked);
    for (int64_t i = 0; i < heads; ++i) {
      const int64_t r = query * heads + i;
      cpu.kernels.scale(sums + r * wide, 1 / rows.softmax[static_cast<size_t>(r)].weight, row + i * width, width);
    }
    cpu.finish_row(row, to, query);
  }
}

void attention(CpuBackend& cpu, const ops::Attention& op) {
  if (op.y.empty()) return;
  const ProductKernel& kernel = op.v.dtype == op.q.dtype ? product_kernel(cpu, op.q, op.k) : cpu.products.f32;
  const int64_t width = op.shape.head_dim, dwords = kernel.dwords_of(width), heads = op.shape.heads / op.shape.kv_heads;
  const int64_t queries_at_once = std::max<int64_t>(1, kRows / heads);
  std::vector<AttentionTask> tasks;
  int64_t packed_dwords = 0;
  for (int64_t s = 0; s + 1 < static_cast<int64_t>(op.offsets.size()); ++s) {
    const int64_t first = op.offsets[static_cast<size_t>(s)], tokens = op.offsets[static_cast<size_t>(s) + 1] - first;
    packed_dwords += op.shape.kv_heads * (rounded_up(tokens, kernel.cols) * dwords + 16 +
                                          rounded_up(width, kernel.cols) * kernel.dwords_of(tokens) + 16);
    for (int64_t head = 0; head < op.shape.kv_heads; ++head) {
      for (int64_t query = 0; query < tokens; query += queries_at_once)
        tasks.push_back({first, s, head, query, std::min(queries_at_once, tokens - query)});
    }
  }
  // The longest tasks first, so that threads end together.
  const auto keys_of = [&](const AttentionTask& task) {
    return task.first_query + task.queries - seen(op.shape, task.first_query, task.first_query).first;
  };
  std::stable_sort(tasks.begin(), tasks.end(), [&](const auto& a, const auto& b) { return keys_of(a) > keys_of(b); });

  ScratchPool::Lease key_room = cpu.scratch.borrow(packed_dwords);
  const PackedKeys packed = pack_keys(cpu, kernel, op.k, op.v, op.offsets, op.shape, key_room);
  cpu.pool.for_each(static_cast<int64_t>(tasks.size()), [&](int64_t index) {
    attend(cpu, kernel, op.q, packed, op.shape, tasks[static_cast<size_t>(index)], op.y);
  });
}

int64_t attention_scratch(const CpuBackend& cpu, const OpCall& call) {
  const auto [tokens, heads, head_dim, length] = call.sizes;
  const ProductKernel& kernel = product_kernel(cpu, call.dtype);
  return kDwordBytes * pieces_of(tokens, std::max<int64_t>(length, 1)) * heads *
         (b_dwords(kernel, length, head_dim) + b_dwords(kernel, head_dim, length));
}

// One query and the heads that share a key head. Each key and each value is read once.
void attend_one(CpuBackend& cpu, const ops::CachedAttention& op, int64_t row, int64_t kv_head) {
  const AttentionShape& shape = op.shape;
  const int64_t width = shape.head_dim, heads = shape.heads / shape.kv_heads, query = op.k.rows - op.q.rows + row;
  const KeyRange keys = seen(shape, query, query);
  const int64_t count = keys.end - keys.first, room = rounded_up(count, kLane);
  ScratchPool::Lease lease = cpu.scratch.borrow(heads * (room + 2 * width) + width, 4);
  float *const scores = lease.take(heads * room), *const queries = lease.take(heads * width),
               *const sums = lease.take(heads * width), *const wide = lease.take(width);
  const ConstMatrixView k = op.k.block(keys.first, count, kv_head * width, width),
                        v = op.v.block(keys.first, count, kv_head * width, width);
  const float* const of_queries = cpu.as_f32(op.q.col_range(kv_head * heads * width, heads * width), row, queries);
  const NarrowKernels& narrow = *cpu.kernels.narrow;
  const bool is_bf16 = are_bf16(k, v);
  for (int64_t key = 0; key < count; ++key) {
    const float* const line = is_bf16 ? nullptr : cpu.as_f32(k, key, wide);
    for (int64_t i = 0; i < heads; ++i) {
      const float* const own = of_queries + i * width;
      scores[i * room + key] =
          is_bf16 ? narrow.product_bf16(own, k.row<uint16_t>(key), width) : narrow.product(own, line, width);
    }
  }
  std::fill_n(sums, heads * width, 0.0F);
  std::vector<RunningSoftmax> softmax(static_cast<size_t>(heads));
  for (int64_t i = 0; i < heads; ++i) {
    const int64_t head = kv_head * heads + i;
    float* const line = scores + i * room;
    const bool has_sink = !shape.sinks.empty();
    RunningSoftmax& running = softmax[static_cast<size_t>(i)];
    running = {.top = has_sink ? shape.sinks.row<float>(0)[head] : kUnseen, .weight = has_sink ? 1.0F : 0.0F};
    const float factor = modify_scores(cpu, shape, head, query, keys, line);
    std::fill(line + count, line + room, kUnseen);
    cpu.kernels.soften(line, room, factor, running);
  }
  for (int64_t key = 0; key < count; ++key) {
    const float* const line = is_bf16 ? nullptr : cpu.as_f32(v, key, wide);
    for (int64_t i = 0; i < heads; ++i) {
      const float share = scores[i * room + key];
      float* const own = sums + i * width;
      is_bf16 ? cpu.kernels.add_bf16(v.row<uint16_t>(key), share, own, width)
              : cpu.kernels.add(line, share, own, width);
    }
  }
  const MatrixView to = op.y.col_range(kv_head * heads * width, heads * width);
  float* const result = cpu.begin_row(to, row, queries);
  for (int64_t i = 0; i < heads; ++i)
    cpu.kernels.scale(sums + i * width, 1 / softmax[static_cast<size_t>(i)].weight, result + i * width, width);
  cpu.finish_row(result, to, row);
}

void cached_attention(CpuBackend& cpu, const ops::CachedAttention& op) {
  if (op.y.empty()) return;
  cpu.pool.for_each(op.q.rows * op.shape.kv_heads,
                    [&](int64_t task) { attend_one(cpu, op, task / op.shape.kv_heads, task % op.shape.kv_heads); });
}

}  // namespace

void add_attention_ops(CpuOps& table) {
  table.add<attention>(&attention_scratch);
  table.add<cached_attention>();
}

}  // namespace gptq::cpu
