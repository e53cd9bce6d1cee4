#include "model/attention.h"

#include <utility>
#include <vector>

#include "model/columns.h"
#include "model/norm.h"

namespace gptq {
namespace {

Matrix clone_shape(Backend& backend, ConstMatrixView like) { return Matrix(backend, like.dtype, like.rows, like.cols); }

// The columns of q, k and v in the output of a fused linear, head by head.
struct FusedColumns {
  std::vector<int32_t> q, k, v;
};
FusedColumns fused_columns(const ModelConfig& config, const BlockKind& kind) {
  FusedColumns columns;
  const auto add_head = [&](std::vector<int32_t>& to, int64_t first) { add_columns(to, first, kind.head_dim); };
  const int64_t dim = kind.head_dim, heads_of_group = kind.heads / kind.kv_heads;
  if (config.architecture->qkv_order == QkvOrder::codegen) {
    constexpr int64_t kParts = 4;
    const int64_t heads = kind.heads / kParts;
    for (int64_t head = 0; head < kind.heads; ++head) {
      const int64_t part = head / heads * 3 * heads * dim, place = head % heads * dim;
      add_head(columns.q, part + place);
      add_head(columns.v, part + heads * dim + place);
      add_head(columns.k, part + 2 * heads * dim + place);
    }
    return columns;
  }
  for (int64_t group = 0; group < kind.kv_heads; ++group) {
    const int64_t first = group * (heads_of_group + 2) * dim;
    for (int64_t head = 0; head < heads_of_group; ++head) add_head(columns.q, first + head * dim);
    add_head(columns.k, first + heads_of_group * dim);
    add_head(columns.v, first + (heads_of_group + 1) * dim);
  }
  return columns;
}

// The columns of queries, or of the gates behind them, where each head has both.
std::vector<int32_t> columns_of_heads(const BlockKind& kind, bool gates) {
  std::vector<int32_t> columns;
  for (int64_t head = 0; head < kind.heads; ++head)
    add_columns(columns, (2 * head + (gates ? 1 : 0)) * kind.head_dim, kind.head_dim);
  return columns;
}

// heads = activation(gates) * heads
void gate(Backend& backend, ConstMatrixView gates, Activation activation, MatrixView heads) {
  Matrix gated = clone_shape(backend, heads);
  backend.run(ops::Gate{.gate = gates, .up = heads, .activation = activation, .y = gated});
  backend.run(ops::Convert{.x = gated, .y = heads});
}

}  // namespace

Attention::Projected Attention::project(const Block& block, ConstMatrixView x, Kept kept) const {
  Backend& backend = *block.backend;
  const BlockKind& kind = config_.kinds[static_cast<size_t>(block.index)];
  const std::vector<Linear>& linears = linears_of(block, StepKind::attention_in);
  const int64_t q_width = kind.heads * kind.head_dim, kv_width = kind.kv_heads * kind.head_dim;
  const bool is_fused = !config_.architecture->qkv.empty();
  Projected heads;
  const auto copy_of = [&](ConstMatrixView from) {
    Matrix copy(backend, dtype_, from.rows, from.cols);
    backend.run(ops::Convert{.x = from, .y = copy});
    return copy;
  };
  heads.owners.push_back(apply(backend, linears[0], x));
  if (config_.architecture->gated_heads) {
    const Matrix both = std::move(heads.owners[0]);
    heads.gates = gather(backend, both, columns_of_heads(kind, true));
    heads.owners[0] = gather(backend, both, columns_of_heads(kind, false));
  }
  if (!is_fused) {
    heads.owners.push_back(kind.reuses_keys ? copy_of(kept.keys) : apply(backend, linears[1], x));
    heads.owners.push_back(kind.reuses_keys    ? copy_of(kept.values)
                           : kind.value_is_key ? copy_of(heads.owners[1])
                                               : apply(backend, linears[2], x));
  } else if (config_.architecture->qkv_order == QkvOrder::concatenated) {
    const MatrixView all = heads.owners[0];
    heads.q = all.col_range(0, q_width);
    heads.k = all.col_range(q_width, kv_width);
    heads.v = all.col_range(q_width + kv_width, kv_width);
    return heads;
  } else {
    const Matrix all = std::move(heads.owners[0]);
    heads.owners.clear();
    const FusedColumns columns = fused_columns(config_, kind);
    for (const std::vector<int32_t>* ids : {&columns.q, &columns.k, &columns.v})
      heads.owners.push_back(gather(backend, all, *ids));
  }
  heads.q = heads.owners[0];
  heads.k = heads.owners[1];
  heads.v = heads.owners[2];
  return heads;
}

Matrix Attention::attend(const Block& block, Batch& batch) {
  Backend& backend = *block.backend;
  const BlockKind& kind = config_.kinds[static_cast<size_t>(block.index)];
  const int64_t kv_width = kind.kv_heads * kind.head_dim;
  const bool is_narrow = kind.value_dim != kind.head_dim;
  Matrix y(backend, dtype_, batch.tokens(), kind.heads * kind.value_dim);
  micro_batches_.for_each(batch, [&](Rows rows, SequenceOffsets offsets) {
    const ConstMatrixView x = rows.of(batch.input.view());
    Kept kept;
    if (kind.keys_at >= 0) {
      kept.keys = rows.of(batch.residual).col_range(kind.keys_at, kv_width);
      kept.values = rows.of(batch.residual).col_range(kind.keys_at + kv_width, kv_width);
    }
    Projected heads = project(block, x, kept);
    Matrix v = is_narrow ? with_zeros(block, heads.v) : Matrix();
    Matrix wide = is_narrow ? Matrix(backend, dtype_, x.rows, kind.heads * kind.head_dim) : Matrix();
    attend_heads(block, tokens_of(block, batch, offsets), kind.head_dim, heads.q, heads.k,
                 is_narrow ? v.view() : heads.v, is_narrow ? wide.view() : rows.of(y), kept);
    if (is_narrow) without_zeros(block, wide, rows.of(y));
    if (!config_.architecture->attention_gate.empty()) gate_heads(block, x, rows.of(y));
    if (!heads.gates.empty()) gate(backend, heads.gates, Activation::sigmoid, rows.of(y));
  });
  return y;
}

// Values [rows, kv_heads * value_dim], scaled, with zeros after each head up to head_dim.
Matrix Attention::with_zeros(const Block& block, ConstMatrixView v) const {
  Backend& backend = *block.backend;
  const BlockKind& kind = config_.kinds[static_cast<size_t>(block.index)];
  Matrix padded(backend, dtype_, v.rows, v.cols + 1), wide(backend, dtype_, v.rows, kind.kv_heads * kind.head_dim);
  backend.run(ops::Clear{.y = padded});
  backend.run(ops::Add{.x = v, .factor = config_.value_scale, .y = padded.view().col_range(0, v.cols)});
  std::vector<int32_t> columns;
  for (int64_t column = 0; column < wide.cols(); ++column) {
    const int64_t head = column / kind.head_dim, place = column % kind.head_dim;
    columns.push_back(static_cast<int32_t>(place < kind.value_dim ? head * kind.value_dim + place : v.cols));
  }
  backend.run(ops::GatherColumns{.x = padded, .ids = columns, .y = wide});
  return wide;
}

void Attention::without_zeros(const Block& block, ConstMatrixView wide, MatrixView y) const {
  const BlockKind& kind = config_.kinds[static_cast<size_t>(block.index)];
  std::vector<int32_t> columns;
  for (int64_t column = 0; column < y.cols; ++column)
    columns.push_back(static_cast<int32_t>(column / kind.value_dim * kind.head_dim + column % kind.value_dim));
  block.backend->run(ops::GatherColumns{.x = wide, .ids = columns, .y = y});
}

// Multiplies heads [rows, heads * head_dim] by the activated gate of their input x.
void Attention::gate_heads(const Block& block, ConstMatrixView x, MatrixView heads) const {
  Backend& backend = *block.backend;
  const BlockKind& kind = config_.kinds[static_cast<size_t>(block.index)];
  Matrix gates;
  if (!config_.gate_per_head) {
    gates = apply(backend, linears_of(block, StepKind::attention_in).back(), x);
  } else {
    Matrix per_head(backend, dtype_, x.rows, kind.heads);
    backend.run(ops::Linear{.x = x, .w = part_of(block, Part::head_gates).weight, .bias = {}, .y = per_head});
    const int64_t size = heads.cols / kind.heads;
    std::vector<int32_t> columns;
    for (int64_t column = 0; column < heads.cols; ++column) columns.push_back(static_cast<int32_t>(column / size));
    gates = gather(backend, per_head, columns);
  }
  gate(backend, gates, config_.architecture->attention_gate_activation, heads);
}

Attention::Tokens Attention::tokens_of(const Block& block, const Batch& batch, SequenceOffsets offsets) const {
  const BlockKind& kind = config_.kinds[static_cast<size_t>(block.index)];
  return {.offsets = offsets,
          .rope = ropes_.table(batch, kind.rope, *block.backend),
          .query_rope = ropes_.table(batch, kind.query_rope, *block.backend),
          .cache = batch.cache};
}

AttentionShape Attention::shape_of(const Block& block, int64_t head_dim) const {
  const BlockKind& kind = config_.kinds[static_cast<size_t>(block.index)];
  return {.heads = kind.heads,
          .kv_heads = kind.kv_heads,
          .head_dim = head_dim,
          .scale = kind.score_scale,
          .soft_cap = config_.score_cap,
          .window = kind.window,
          .chunk = kind.chunk,
          .slopes = block.slopes,
          .sinks = part_of(block, Part::sinks).weight};
}

void Attention::attend_heads(const Block& block, const Tokens& tokens, int64_t head_dim, MatrixView q, MatrixView k,
                             MatrixView v, MatrixView y, Kept kept) const {
  Backend& backend = *block.backend;
  const bool has_keys = !config_.kinds[static_cast<size_t>(block.index)].reuses_keys;  // else they are ready
  std::vector<Matrix> normed;
  const auto normalize_heads = [&](Part part, MatrixView& heads) {
    if (part_of(block, part).weight.empty()) return;
    Matrix& result = normed.emplace_back(clone_shape(backend, heads));
    normalize(backend, config_, heads, part_of(block, part), result);
    heads = result;
  };
  const auto normalize_pair = [&] {
    normalize_heads(Part::q_norm, q);
    if (has_keys) normalize_heads(Part::k_norm, k);
  };
  if (!config_.architecture->qk_norm_after_rope) normalize_pair();
  if (has_keys) normalize_heads(Part::v_norm, v);
  if (config_.qkv_cap > 0) {
    for (const MatrixView heads : {q, k, v})
      backend.run(ops::Cap{.kind = ops::Cap::hard, .bound = config_.qkv_cap, .x = heads});
  }
  const auto rotate = [&](const RopeRows& rope, MatrixView heads) {
    if (rope.cos.empty()) return;
    backend.run(ops::Rope{.cos = rope.cos,
                          .sin = rope.sin,
                          .offsets = tokens.offsets,
                          .order = config_.rotary_order,
                          .head_dim = head_dim,
                          .x = heads});
  };
  rotate(tokens.rope, q);
  if (has_keys) rotate(tokens.rope, k);
  if (config_.architecture->qk_norm_after_rope) normalize_pair();
  if (has_keys && !kept.keys.empty()) {
    backend.run(ops::Convert{.x = k, .y = kept.keys});
    backend.run(ops::Convert{.x = v, .y = kept.values});
  }
  rotate(tokens.query_rope, q);
  const AttentionShape shape = shape_of(block, head_dim);
  ConstMatrixView all_keys = k, all_values = v;
  if (tokens.cache != nullptr) {
    BlockCache& cached = tokens.cache->blocks[static_cast<size_t>(block.index)];
    all_keys = cached.keys.append(backend, tokens.cache->tokens, k);
    all_values = cached.values.append(backend, tokens.cache->tokens, v);
  }
  if (all_keys.rows > k.rows) {
    backend.run(ops::CachedAttention{.q = q, .k = all_keys, .v = all_values, .shape = shape, .y = y});
  } else {
    backend.run(ops::Attention{.q = q, .k = k, .v = v, .offsets = tokens.offsets, .shape = shape, .y = y});
  }
}

}  // namespace gptq
