#include "model/delta_rule.h"

#include "model/columns.h"

namespace gptq {

void GatedDelta::mix(const Block& block, const Batch& batch, MatrixView y) {
  Backend& backend = *block.backend;
  const DeltaRule& delta = config_.delta;
  micro_batches_.for_each(batch, [&](Rows rows, SequenceOffsets offsets) {
    const ConstMatrixView x = rows.of(batch.input.view());
    const Gates with = gates(block, x);
    const Projected projected = project(block, x);
    Matrix mixed(backend, dtype_, x.rows, delta.mixed_width());
    backend.run(ops::CausalConvolution{.x = projected.mixed,
                                       .weight = part_of(block, Part::convolution).weight,
                                       .offsets = offsets,
                                       .activation = config_.activation,
                                       .y = mixed});
    const Matrix attended = attend(block, mixed, with, offsets);
    Matrix normed(backend, dtype_, x.rows, delta.value_width());
    backend.run(
        ops::RmsNorm{.x = attended, .weight = part_of(block, Part::gated_norm).weight, .eps = norm_eps(), .y = normed});
    backend.run(ops::Gate{
        .gate = projected.z, .up = normed, .activation = Activation::silu, .y = y.row_range(rows.first, rows.count)});
  });
}

float GatedDelta::norm_eps() const {
  const auto own = static_cast<float>(config_.architecture->delta.norm_eps);
  return own > 0 ? own : config_.norm_eps;
}

GatedDelta::Projected GatedDelta::project(const Block& block, ConstMatrixView x) const {
  Backend& backend = *block.backend;
  const std::vector<Linear>& linears = linears_of(block, StepKind::mixer_in);
  if (linears.size() > 1) {  // the last one is z's
    Matrix all(backend, dtype_, x.rows, config_.delta.mixed_width());
    int64_t first = 0;
    for (size_t i = 0; i + 1 < linears.size(); ++i) {
      const int64_t width = linears[i].out_features();
      multiply(backend, linears[i], x, all.view().col_range(first, width));
      first += width;
    }
    return {std::move(all), apply(backend, linears.back(), x)};
  }
  const Matrix all = apply(backend, linears[0], x);
  const DeltaShape& shape = config_.delta.shape;
  const int64_t values = shape.value_heads / shape.key_heads * shape.value_dim, width = 2 * (shape.key_dim + values);
  std::vector<int32_t> mixed, z;
  for (int64_t part = 0; part < 2; ++part) {  // all queries, then all keys
    for (int64_t head = 0; head < shape.key_heads; ++head)
      add_columns(mixed, head * width + part * shape.key_dim, shape.key_dim);
  }
  for (int64_t head = 0; head < shape.key_heads; ++head) {
    add_columns(mixed, head * width + 2 * shape.key_dim, values);
    add_columns(z, head * width + 2 * shape.key_dim + values, values);
  }
  return {gather(backend, all, mixed), gather(backend, all, z)};
}

GatedDelta::Gates GatedDelta::gates(const Block& block, ConstMatrixView x) const {
  Backend& backend = *block.backend;
  const DeltaShape& shape = config_.delta.shape;
  const int64_t heads = shape.value_heads, each = heads / shape.key_heads;
  Matrix all(backend, DType::f32, x.rows, 2 * heads), log_decay(backend, DType::f32, x.rows, heads),
      sigmoids(backend, DType::f32, x.rows, heads), beta = zeros(backend, DType::f32, x.rows, heads);
  backend.run(ops::Linear{.x = x, .w = part_of(block, Part::mixer_gates).weight, .y = all});
  if (config_.architecture->delta.gates.size() == 1) {
    std::vector<int32_t> ids;
    for (int64_t part = 0; part < 2; ++part) {
      for (int64_t head = 0; head < shape.key_heads; ++head) add_columns(ids, (2 * head + part) * each, each);
    }
    all = gather(backend, all, ids);
  }
  const ConstMatrixView b = all.view().col_range(0, heads), a = all.view().col_range(heads, heads);
  backend.run(ops::Gate{.gate = b, .up = {}, .activation = Activation::sigmoid, .y = sigmoids});
  backend.run(ops::Add{.x = sigmoids, .factor = config_.delta.beta_scale, .y = beta});
  backend.run(ops::LogDecay{.x = a,
                            .log_rate = part_of(block, Part::decay).weight,
                            .bias = part_of(block, Part::step_bias).weight,
                            .y = log_decay});
  return {std::move(log_decay), std::move(beta)};
}

Matrix GatedDelta::attend(const Block& block, ConstMatrixView mixed, const Gates& gates,
                          SequenceOffsets offsets) const {
  Backend& backend = *block.backend;
  const DeltaRule& delta = config_.delta;
  const int64_t keys = delta.key_width();
  // Of the sum of squares in transformers, where the norm takes their mean.
  const float eps = 1e-6F / static_cast<float>(delta.shape.key_dim);
  const auto normalized = [&](int64_t first, Part scale) {
    Matrix y(backend, dtype_, mixed.rows, keys);
    backend.run(
        ops::RmsNorm{.x = mixed.col_range(first, keys), .weight = part_of(block, scale).weight, .eps = eps, .y = y});
    return y;
  };
  const Matrix q = normalized(0, Part::query_scale), k = normalized(keys, Part::key_scale);
  Matrix y(backend, dtype_, mixed.rows, delta.value_width());
  backend.run(ops::GatedDeltaRule{.q = q,
                                  .k = k,
                                  .v = mixed.col_range(2 * keys, delta.value_width()),
                                  .log_decay = gates.log_decay,
                                  .beta = gates.beta,
                                  .offsets = offsets,
                                  .shape = delta.shape,
                                  .y = y});
  return y;
}

}  // namespace gptq
