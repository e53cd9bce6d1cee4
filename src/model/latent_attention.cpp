#include "model/latent_attention.h"

#include <vector>

namespace gptq {

Matrix LatentAttention::latents(const Block& block, const Batch& batch) {
  constexpr float kEps = 1e-6F;  // independent of config.json, as in transformers
  Backend& backend = *block.backend;
  const Latent& latent = config_.latent;
  const std::vector<Linear>& linears = linears_of(block, StepKind::latent_in);
  const int64_t q_width = linears[0].out_features(), kv_rank = latent.kv_rank;
  Matrix y(backend, dtype_, batch.tokens(), q_width + kv_rank + latent.rope_dim);
  micro_batches_.for_each(batch, [&](Rows rows, SequenceOffsets) {
    const ConstMatrixView x = rows.of(batch.input.view());
    const MatrixView to = rows.of(y);
    const Matrix q = apply(backend, linears[0], x), kv = apply(backend, linears[1], x);
    if (latent.q_rank > 0) {
      backend.run(ops::RmsNorm{
          .x = q, .weight = part_of(block, Part::q_latent_norm).weight, .eps = kEps, .y = to.col_range(0, q_width)});
    } else {
      backend.run(ops::Convert{.x = q, .y = to.col_range(0, q_width)});
    }
    backend.run(ops::RmsNorm{.x = kv.view().col_range(0, kv_rank),
                             .weight = part_of(block, Part::kv_latent_norm).weight,
                             .eps = kEps,
                             .y = to.col_range(q_width, kv_rank)});
    backend.run(ops::Convert{.x = kv.view().col_range(kv_rank, latent.rope_dim),
                             .y = to.col_range(q_width + kv_rank, latent.rope_dim)});
  });
  return y;
}

// Assembles heads with the rotated part first, and pads values with zeros to the width of keys.
Matrix LatentAttention::attend(const Block& block, const Batch& batch) {
  Backend& backend = *block.backend;
  const Latent& latent = config_.latent;
  const int64_t dim = config_.head_dim, plain = dim - latent.rope_dim, value = latent.value_dim, heads = config_.heads;
  const int64_t expanded = heads * (plain + value), shared = expanded, zero = expanded + latent.rope_dim;
  std::vector<int32_t> q_columns, k_columns, v_columns, y_columns;
  const auto add = [](std::vector<int32_t>& to, int64_t first, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to.push_back(static_cast<int32_t>(first + i));
  };
  for (int64_t head = 0; head < heads; ++head) {
    add(q_columns, head * dim + plain, latent.rope_dim);
    add(q_columns, head * dim, plain);
    add(k_columns, shared, latent.rope_dim);
    add(k_columns, head * (plain + value), plain);
    add(v_columns, head * (plain + value) + plain, value);
    v_columns.insert(v_columns.end(), static_cast<size_t>(dim - value), static_cast<int32_t>(zero));
    add(y_columns, head * dim, value);
  }
  const int64_t q_width = batch.input.cols() - latent.kv_rank - latent.rope_dim;
  Matrix result(backend, dtype_, batch.tokens(), heads * value);
  micro_batches_.for_each(batch, [&](Rows rows, SequenceOffsets offsets) {
    const ConstMatrixView x = rows.of(batch.input.view());
    const auto matrix = [&](int64_t cols) { return Matrix(backend, dtype_, x.rows, cols); };
    Matrix q = matrix(heads * dim), k = matrix(heads * dim), v = matrix(heads * dim), y = matrix(heads * dim);
    const Matrix projected = latent.q_rank > 0
                                 ? apply(backend, linears_of(block, StepKind::latent_query)[0], x.col_range(0, q_width))
                                 : Matrix();
    backend.run(ops::GatherColumns{
        .x = latent.q_rank > 0 ? projected.view() : x.col_range(0, q_width), .ids = q_columns, .y = q});
    Matrix kv = matrix(zero + 1);
    multiply(backend, linears_of(block, StepKind::latent_key_value)[0], x.col_range(q_width, latent.kv_rank),
             kv.view().col_range(0, expanded));
    backend.run(ops::Convert{.x = x.col_range(q_width + latent.kv_rank, latent.rope_dim),
                             .y = kv.view().col_range(shared, latent.rope_dim)});
    backend.run(ops::Clear{.y = kv.view().col_range(zero, 1)});
    backend.run(ops::GatherColumns{.x = kv, .ids = k_columns, .y = k});
    backend.run(ops::GatherColumns{.x = kv, .ids = v_columns, .y = v});
    attention_.attend_heads(block, attention_.tokens_of(block, batch, offsets), dim, q, k, v, y);
    backend.run(ops::GatherColumns{.x = y, .ids = y_columns, .y = rows.of(result)});
  });
  return result;
}

ConstMatrixView LatentAttention::input(StepKind step, ConstMatrixView latents) const {
  const int64_t q_width = latents.cols - config_.latent.kv_rank - config_.latent.rope_dim;
  return step == StepKind::latent_query ? latents.col_range(0, q_width)
                                        : latents.col_range(q_width, config_.latent.kv_rank);
}

}  // namespace gptq
