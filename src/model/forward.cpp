// Model: the forward pass from the input of a step to that of the next.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "model/model.h"
#include "model/norm.h"
#include "model/tensor_checks.h"

namespace gptq {
namespace {

// A range of a batch's rows.
struct Rows {
  int64_t first = 0, count = 0;
  MatrixView of(Matrix& matrix) const { return matrix.view().row_range(first, count); }
  ConstMatrixView of(ConstMatrixView matrix) const { return matrix.row_range(first, count); }
};

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

}  // namespace

Model::Model(const Checkpoint& checkpoint, Backend& backend, DType dtype, WeightReader reader)
    : backend_(backend),
      dtype_(dtype),
      reader_(std::move(reader)),
      config_(parse_model_config(checkpoint)),
      weights_(checkpoint, config_, dtype, reader_),
      embedding_(checkpoint, config_, dtype),
      output_head_(checkpoint, config_, backend, dtype, reader_) {
  check_tensors(checkpoint, config_, static_cast<bool>(reader_));
}

const Model::RopeMatrices& Model::rope_for(const Batch& batch, int64_t index, Backend& backend) {
  int64_t length = 0;
  for (size_t s = 0; s + 1 < batch.offsets.size(); ++s)
    length = std::max(length, batch.offsets[s + 1] - batch.offsets[s]);
  return rope_for(length, index, backend);
}

void Model::prepare(int64_t longest, Backend& backend) {
  for (size_t rope = 0; rope < config_.ropes.size(); ++rope) rope_for(longest, static_cast<int64_t>(rope), backend);
}

const Model::RopeMatrices& Model::rope_for(int64_t length, int64_t index, Backend& backend) {
  const Rope& kind = config_.ropes[index];
  RopeMatrices& rope = ropes_[{&backend, index}];
  const bool fits = depends_on_length(kind) ? rope.cos.rows() == length : rope.cos.rows() >= length;
  if (!fits) {
    const RopeTable table = rope_table(kind, length);
    rope.cos = to_device(backend, DType::f32, table.positions, table.half_dim, table.cos.data());
    rope.sin = to_device(backend, DType::f32, table.positions, table.half_dim, table.sin.data());
  }
  return rope;
}

template <typename Body>
void Model::in_passes(const Batch& batch, const Body& body) {
  const auto sequences = static_cast<int64_t>(batch.offsets.size()) - 1;
  for (int64_t first = 0; first < sequences;) {
    const int64_t count = std::min(sequences_at_once_, sequences - first), start = batch.offsets[first];
    std::vector<int64_t> offsets(batch.offsets.begin() + first, batch.offsets.begin() + first + count + 1);
    for (int64_t& offset : offsets) offset -= start;
    try {
      body(Rows{start, offsets.back()}, offsets);
    } catch (const OutOfMemory&) {
      if (count == 1) throw;
      sequences_at_once_ = (count + 1) / 2;
      continue;
    }
    first += count;
  }
}

Matrix Model::normed_residual(const Block& block, Part norm, const Batch& batch) const {
  Matrix y(*block.backend, dtype_, batch.tokens(), batch.residual.cols());
  const Affine& part = part_of(block, norm);
  if (part.weight.empty()) {
    block.backend->run(ops::Convert{.x = batch.residual, .y = y});
  } else {
    normalize(*block.backend, config_, batch.residual, part, y);
  }
  return y;
}

Matrix Model::mlp_input(const Block& block, const Batch& batch) const {
  const bool shares_norm = config_.parallel && part_of(block, Part::mlp_norm).weight.empty();
  return normed_residual(block, shares_norm ? Part::attention_norm : Part::mlp_norm, batch);
}

// Attention proper: norms, rope and softmax(q k') v of projected q, k and v.
void Model::attend_heads(const Block& block, const RopeMatrices* rope, const RopeMatrices* query_rope,
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

Matrix Model::attend(const Block& block, const Batch& batch) {
  Backend& backend = *block.backend;
  const BlockKind& kind = config_.kinds[static_cast<size_t>(block.index)];
  const std::vector<Linear>& linears = linears_of(block, StepKind::attention_in);
  const RopeMatrices* rope = kind.rope < 0 ? nullptr : &rope_for(batch, kind.rope, backend);
  const RopeMatrices* query_rope = kind.query_rope < 0 ? nullptr : &rope_for(batch, kind.query_rope, backend);
  const int64_t q_width = config_.heads * config_.head_dim, kv_width = config_.kv_heads * config_.head_dim;
  const bool is_fused = linears.size() == 1,
             is_shuffled = is_fused && config_.architecture->qkv_order != QkvOrder::concatenated;
  const FusedColumns columns = is_shuffled ? fused_columns(config_) : FusedColumns();
  Matrix y(backend, dtype_, batch.tokens(), q_width);
  in_passes(batch, [&](Rows rows, SequenceOffsets offsets) {
    const ConstMatrixView x = rows.of(batch.input.view());
    Matrix q_owner, k_owner, v_owner;
    MatrixView q, k, v;
    if (!is_fused) {
      q_owner = apply(backend, linears[0], x);
      k_owner = apply(backend, linears[1], x);
      v_owner = apply(backend, linears[2], x);
    } else if (is_shuffled) {
      const Matrix all = apply(backend, linears[0], x);
      const auto gather = [&](const std::vector<int32_t>& ids) {
        Matrix heads(backend, dtype_, x.rows, static_cast<int64_t>(ids.size()));
        backend.run(ops::GatherColumns{.x = all, .ids = ids, .y = heads});
        return heads;
      };
      q_owner = gather(columns.q);
      k_owner = gather(columns.k);
      v_owner = gather(columns.v);
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
    attend_heads(block, rope, query_rope, offsets, config_.head_dim, q, k, v, rows.of(y));
  });
  return y;
}

// Concatenates queries (or their latents), the latents of keys and values, and the part of keys that all heads share.
Matrix Model::latents(const Block& block, const Batch& batch) {
  constexpr float kEps = 1e-6F;  // independent of config.json, as in transformers
  Backend& backend = *block.backend;
  const Latent& latent = config_.latent;
  const std::vector<Linear>& linears = linears_of(block, StepKind::latent_in);
  const int64_t q_width = linears[0].weight.rows(), kv_rank = latent.kv_rank;
  Matrix y(backend, dtype_, batch.tokens(), q_width + kv_rank + latent.rope_dim);
  in_passes(batch, [&](Rows rows, SequenceOffsets) {
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
Matrix Model::attend_latents(const Block& block, const Batch& batch) {
  Backend& backend = *block.backend;
  const Latent& latent = config_.latent;
  const RopeMatrices& rope = rope_for(batch, config_.kinds[static_cast<size_t>(block.index)].rope, backend);
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
  in_passes(batch, [&](Rows rows, SequenceOffsets offsets) {
    const ConstMatrixView x = rows.of(batch.input.view());
    const auto matrix = [&](int64_t cols) { return Matrix(backend, dtype_, x.rows, cols); };
    Matrix q = matrix(heads * dim), k = matrix(heads * dim), v = matrix(heads * dim), y = matrix(heads * dim);
    const Matrix projected = latent.q_rank > 0
                                 ? apply(backend, linears_of(block, StepKind::latent_query)[0], x.col_range(0, q_width))
                                 : Matrix();
    backend.run(ops::GatherColumns{
        .x = latent.q_rank > 0 ? projected.view() : x.col_range(0, q_width), .ids = q_columns, .y = q});
    Matrix kv = matrix(zero + 1);
    const Linear& expand = linears_of(block, StepKind::latent_key_value)[0];
    backend.run(ops::Linear{.x = x.col_range(q_width, latent.kv_rank),
                            .w = expand.weight,
                            .bias = expand.bias,
                            .y = kv.view().col_range(0, expanded)});
    backend.run(ops::Convert{.x = x.col_range(q_width + latent.kv_rank, latent.rope_dim),
                             .y = kv.view().col_range(shared, latent.rope_dim)});
    backend.run(ops::Clear{.y = kv.view().col_range(zero, 1)});
    backend.run(ops::GatherColumns{.x = kv, .ids = k_columns, .y = k});
    backend.run(ops::GatherColumns{.x = kv, .ids = v_columns, .y = v});
    attend_heads(block, &rope, nullptr, offsets, dim, q, k, v, y);
    backend.run(ops::GatherColumns{.x = y, .ids = y_columns, .y = rows.of(result)});
  });
  return result;
}

int64_t Model::activated_width(const Step& step) const {
  const bool is_fused = !config_.architecture->gate.empty() && step.linears.size() == 1;
  return step.linears[0].weight.rows() / (is_fused ? 2 : 1);
}

void Model::activate(Backend& backend, const Step& step, ConstMatrixView x, MatrixView y, int64_t room) const {
  const std::vector<Linear>& linears = step.linears;
  if (backend.fuses_linears(dtype_)) {
    const ConstMatrixView weight = linears[0].weight, bias = linears[0].bias;
    GatedWeights weights{.gate = weight, .gate_bias = bias, .activation = config_.activation};
    if (weight.rows != y.cols) {  // gate and up fused in one linear
      weights.gate = weight.row_range(0, y.cols);
      weights.up = weight.row_range(y.cols, y.cols);
      if (!bias.empty()) {
        weights.gate_bias = bias.col_range(0, y.cols);
        weights.up_bias = bias.col_range(y.cols, y.cols);
      }
    } else if (linears.size() > 1) {
      weights.up = linears[1].weight;
      weights.up_bias = linears[1].bias;
    }
    return backend.run(ops::GatedLinear{.x = x, .weights = weights, .y = y});
  }
  const Matrix first = apply(backend, linears[0], x, room),
               second = linears.size() > 1 ? apply(backend, linears[1], x, room) : Matrix();
  const ConstMatrixView gate = first.view().row_range(0, x.rows);
  const bool is_fused = gate.cols != y.cols;
  const ConstMatrixView up = is_fused         ? gate.col_range(y.cols, y.cols)
                             : second.empty() ? ConstMatrixView()
                                              : second.view().row_range(0, x.rows);
  backend.run(ops::Gate{.gate = gate.col_range(0, y.cols), .up = up, .activation = config_.activation, .y = y});
}

// For a step that all tokens pass.
Matrix Model::activate(const Block& block, int64_t step, ConstMatrixView input, const Batch& batch) {
  Backend& backend = *block.backend;
  const Step& linears = block.steps[static_cast<size_t>(step)];
  Matrix y(backend, dtype_, batch.tokens(), activated_width(linears));
  in_passes(batch, [&](Rows rows, SequenceOffsets) { activate(backend, linears, rows.of(input), rows.of(y)); });
  return y;
}

void Model::add_branch(const Block& block, Part post_norm, ConstMatrixView y, MatrixView residual) const {
  Backend& backend = *block.backend;
  const Affine& norm = part_of(block, post_norm);
  if (norm.weight.empty()) return backend.run(ops::Add{.x = y, .factor = config_.residual_scale, .y = residual});
  Matrix normed = clone_shape(backend, y);
  normalize(backend, config_, y, norm, normed);
  backend.run(ops::Add{.x = normed, .factor = config_.residual_scale, .y = residual});
}

void Model::add_to_residual(const Block& block, StepKind step, Part post_norm, ConstMatrixView input, Batch& batch) {
  in_passes(batch, [&](Rows rows, SequenceOffsets) {
    const Linear& linear = linears_of(block, step)[0];
    if (part_of(block, post_norm).weight.empty() && block.backend->fuses_linears(dtype_)) {
      return block.backend->run(ops::AddLinear{.x = rows.of(input),
                                               .w = linear.weight,
                                               .bias = linear.bias,
                                               .factor = config_.residual_scale,
                                               .y = rows.of(batch.residual)});
    }
    const Matrix y = apply(*block.backend, linear, rows.of(input));
    add_branch(block, post_norm, y, rows.of(batch.residual));
  });
}

void Model::rebuild_input(const Block& block, int64_t step, Batch& batch) {
  batch.is_rebuilt = true;
  const int64_t mlp = first_of_mlp(block);
  const auto enter_from = [&](int64_t first) {
    for (int64_t s = first; s < step; ++s) enter(block, s, batch);
  };
  if (step < mlp || (step == mlp && !config_.parallel)) return enter_from(0);
  if (config_.parallel) {
    if (step < static_cast<int64_t>(block.steps.size())) enter_from(mlp);
    return;
  }
  batch.input = mlp_input(block, batch);
  enter_from(mlp + 1);
}

void Model::enter(const Block& block, int64_t step, Batch& batch) {
  if (step >= static_cast<int64_t>(block.kinds.size()))
    throw Error(cat("a block has ", block.kinds.size(), " steps, not a step ", step));
  const StepKind kind = block.kinds[static_cast<size_t>(step)];
  if (step == 0) {
    batch.input = normed_residual(block, Part::attention_norm, batch);
    return;
  }
  if (step == first_of_mlp(block)) {
    const Matrix attended = std::move(batch.input);
    batch.input = Matrix();
    const auto add_attention = [&] {
      add_to_residual(block, StepKind::attention_out, Part::attention_post_norm, attended, batch);
    };
    if (!config_.parallel) add_attention();
    if (kind == StepKind::mlp_in) {
      batch.input = mlp_input(block, batch);
    } else {
      begin_experts(block, batch);
    }
    if (config_.parallel && !batch.is_rebuilt) add_attention();
    return;
  }
  switch (block.kinds[static_cast<size_t>(step) - 1]) {  // the step whose linears are applied
    case StepKind::attention_in:
      batch.input = attend(block, batch);
      break;
    case StepKind::latent_in:
      batch.input = latents(block, batch);
      break;
    case StepKind::latent_query:
      break;
    case StepKind::latent_key_value:
      batch.input = attend_latents(block, batch);
      break;
    case StepKind::mlp_in:
      batch.input = activate(block, step - 1, batch.input, batch);
      break;
    case StepKind::shared_out:
      add_shared(block, step - 1, batch);
      break;
    case StepKind::expert_out:
      add_expert(block, step - 1, batch);
      break;
    default:  // inputs of shared_out and expert_out are made when visited
      break;
  }
}

ConstMatrixView Model::input(const Block& block, int64_t step, const Batch& batch) const {
  const ConstMatrixView all = batch.input;
  const int64_t q_width = all.cols - config_.latent.kv_rank - config_.latent.rope_dim;
  switch (block.kinds[static_cast<size_t>(step)]) {
    case StepKind::latent_query:
      return all.col_range(0, q_width);
    case StepKind::latent_key_value:
      return all.col_range(q_width, config_.latent.kv_rank);
    case StepKind::shared_in:
      return all.col_range(0, config_.hidden);
    default:
      return all;
  }
}

void Model::finish(const Block& block, Batch& batch) {
  const auto steps = static_cast<int64_t>(block.steps.size());
  if (config_.parallel && batch.is_rebuilt) {
    // Both branches read the residual before one of them adds to it.
    const int64_t mlp = first_of_mlp(block);
    for (int64_t step = 0; step < mlp; ++step) enter(block, step, batch);
    const Matrix attended = std::exchange(batch.input, Matrix());
    for (int64_t step = mlp; step < steps; ++step) enter(block, step, batch);
    add_to_residual(block, StepKind::attention_out, Part::attention_post_norm, attended, batch);
  }
  if (config_.kinds[static_cast<size_t>(block.index)].has_experts) {
    add_expert(block, steps - 1, batch);
    add_branch(block, Part::mlp_post_norm, batch.input.view().col_range(config_.hidden, config_.hidden),
               batch.residual);
    batch.routing = {};
  } else {
    add_to_residual(block, StepKind::mlp_out, Part::mlp_post_norm, batch.input, batch);
  }
  batch.input = Matrix();
}

void Model::forward(const Block& block, Batch& batch) {
  for (size_t step = 0; step < block.steps.size(); ++step) enter(block, static_cast<int64_t>(step), batch);
  finish(block, batch);
}

}  // namespace gptq
