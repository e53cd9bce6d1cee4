#include "model/attention.h"

#include <vector>

#include "model/norm.h"

namespace gptq {
namespace {

Matrix clone_shape(Backend& backend, ConstMatrixView like) { return Matrix(backend, like.dtype, like.rows, like.cols); }

// The columns of q, k and v in the output of a fused linear, head by head.
struct FusedColumns {
  std::vector<int32_t> q, k, v;
};
FusedColumns fused_columns(const ModelConfig& config) {
  FusedColumns columns;
  const auto add_head = [&](std::vector<int32_t>& to, int64_t first) {
    for (int64_t i = 0; i < config.head_dim; ++i) to.push_back(static_cast<int32_t>(first + i));
  };
  const int64_t dim = config.head_dim, heads_of_group = config.heads / config.kv_heads;
  if (config.architecture->qkv_order == QkvOrder::codegen) {
    constexpr int64_t kParts = 4;
    const int64_t heads = config.heads / kParts;
    for (int64_t head = 0; head < config.heads; ++head) {
      const int64_t part = head / heads * 3 * heads * dim, place = head % heads * dim;
      add_head(columns.q, part + place);
      add_head(columns.v, part + heads * dim + place);
      add_head(columns.k, part + 2 * heads * dim + place);
    }
    return columns;
  }
  for (int64_t group = 0; group < config.kv_heads; ++group) {
    const int64_t first = group * (heads_of_group + 2) * dim;
    for (int64_t head = 0; head < heads_of_group; ++head) add_head(columns.q, first + head * dim);
    add_head(columns.k, first + heads_of_group * dim);
    add_head(columns.v, first + (heads_of_group + 1) * dim);
  }
  return columns;
}

// The columns of queries, or of the gates behind them, where each head has both.
std::vector<int32_t> columns_of_heads(const ModelConfig& config, bool gates) {
  std::vector<int32_t> columns;
  for (int64_t head = 0; head < config.heads; ++head) {
    for (int64_t i = 0; i < config.head_dim; ++i)
      columns.push_back(static_cast<int32_t>((2 * head + (gates ? 1 : 0)) * config.head_dim + i));
  }
  return columns;
}

Matrix gather(Backend& backend, ConstMatrixView x, const std::vector<int32_t>& ids) {
  Matrix y(backend, x.dtype, x.rows, static_cast<int64_t>(ids.size()));
  backend.run(ops::GatherColumns{.x = x, .ids = ids, .y = y});
  return y;
}

}  // namespace

Matrix Attention::attend(const Block& block, const Batch& batch) {
  Backend& backend = *block.backend;
  const BlockKind& kind = config_.kinds[static_cast<size_t>(block.index)];
  const std::vector<Linear>& linears = linears_of(block, StepKind::attention_in);
  const RopeMatrices* rope = kind.rope < 0 ? nullptr : &ropes_.table(batch, kind.rope, backend);
  const RopeMatrices* query_rope = kind.query_rope < 0 ? nullptr : &ropes_.table(batch, kind.query_rope, backend);
  const int64_t q_width = config_.heads * config_.head_dim, kv_width = config_.kv_heads * config_.head_dim;
  const bool is_fused = linears.size() == 1,
             is_shuffled = is_fused && config_.architecture->qkv_order != QkvOrder::concatenated;
  const FusedColumns columns = is_shuffled ? fused_columns(config_) : FusedColumns();
  const bool is_gated = config_.architecture->gated_heads;
  const std::vector<int32_t> query_columns = is_gated ? columns_of_heads(config_, false) : std::vector<int32_t>(),
                             gate_columns = is_gated ? columns_of_heads(config_, true) : std::vector<int32_t>();
  Matrix y(backend, dtype_, batch.tokens(), q_width);
  micro_batches_.for_each(batch, [&](Rows rows, SequenceOffsets offsets) {
    const ConstMatrixView x = rows.of(batch.input.view());
    Matrix q_owner, k_owner, v_owner, gates;
    MatrixView q, k, v;
    if (!is_fused) {
      q_owner = apply(backend, linears[0], x);
      k_owner = apply(backend, linears[1], x);
      v_owner = apply(backend, linears[2], x);
      if (is_gated) {
        gates = gather(backend, q_owner, gate_columns);
        q_owner = gather(backend, q_owner, query_columns);
      }
    } else if (is_shuffled) {
      const Matrix all = apply(backend, linears[0], x);
      q_owner = gather(backend, all, columns.q);
      k_owner = gather(backend, all, columns.k);
      v_owner = gather(backend, all, columns.v);
    } else {
      q_owner = apply(backend, linears[0], x);
    }
    if (is_fused && !is_shuffled) {
      const MatrixView all = q_owner;
      q = all.col_range(0, q_width);
      k = all.col_range(q_width, kv_width);
      v = all.col_range(q_width + kv_width, kv_width);
    } else {
      q = q_owner;
      k = k_owner;
      v = v_owner;
    }
    if (!is_gated) return attend_heads(block, rope, query_rope, offsets, config_.head_dim, q, k, v, rows.of(y));
    Matrix attended(backend, dtype_, x.rows, q_width);
    attend_heads(block, rope, query_rope, offsets, config_.head_dim, q, k, v, attended);
    backend.run(ops::Gate{.gate = gates, .up = attended, .activation = Activation::sigmoid, .y = rows.of(y)});
  });
  return y;
}

void Attention::attend_heads(const Block& block, const RopeMatrices* rope, const RopeMatrices* query_rope,
                             SequenceOffsets offsets, int64_t head_dim, MatrixView q, MatrixView k, MatrixView v,
                             MatrixView y) const {
  Backend& backend = *block.backend;
  const RotaryOrder order = config_.architecture->rotary_order;
  const BlockKind& kind = config_.kinds[static_cast<size_t>(block.index)];
  Matrix normed_q, normed_k;
  const auto normalize_heads = [&] {
    normed_q = clone_shape(backend, q);
    normed_k = clone_shape(backend, k);
    normalize(backend, config_, q, part_of(block, Part::q_norm), normed_q);
    normalize(backend, config_, k, part_of(block, Part::k_norm), normed_k);
    q = normed_q;
    k = normed_k;
  };
  const bool has_norm = !part_of(block, Part::q_norm).weight.empty();
  if (has_norm && !config_.architecture->qk_norm_after_rope) normalize_heads();
  if (config_.qkv_cap > 0) {
    for (const MatrixView heads : {q, k, v})
      backend.run(ops::Cap{.kind = ops::Cap::hard, .bound = config_.qkv_cap, .x = heads});
  }
  if (rope != nullptr) {
    backend.run(ops::Rope{
        .cos = rope->cos, .sin = rope->sin, .offsets = offsets, .order = order, .head_dim = head_dim, .x = q});
    backend.run(ops::Rope{
        .cos = rope->cos, .sin = rope->sin, .offsets = offsets, .order = order, .head_dim = head_dim, .x = k});
  }
  if (has_norm && config_.architecture->qk_norm_after_rope) normalize_heads();
  if (query_rope != nullptr)
    backend.run(ops::Rope{.cos = query_rope->cos,
                          .sin = query_rope->sin,
                          .offsets = offsets,
                          .order = order,
                          .head_dim = head_dim,
                          .x = q});
  const AttentionShape shape{.heads = config_.heads,
                             .kv_heads = config_.kv_heads,
                             .head_dim = head_dim,
                             .scale = kind.score_scale,
                             .soft_cap = config_.score_cap,
                             .window = kind.window,
                             .chunk = kind.chunk,
                             .slopes = block.slopes,
                             .sinks = part_of(block, Part::sinks).weight};
  backend.run(ops::Attention{.q = q, .k = k, .v = v, .offsets = offsets, .shape = shape, .y = y});
}

}  // namespace gptq
