// The forward pass: what happens between the inputs of two steps.
#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "model/block.h"

namespace gptq {
namespace {

// Some rows of a batch's matrices.
struct Rows {
  int64_t first = 0, count = 0;
  MatrixView of(Matrix& matrix) const { return matrix.view().row_range(first, count); }
  ConstMatrixView of(ConstMatrixView matrix) const { return matrix.row_range(first, count); }
};

Matrix clone_shape(Backend& backend, ConstMatrixView like) { return Matrix(backend, like.dtype, like.rows, like.cols); }

const Affine& part_of(const Block& block, Part part) { return block.parts[static_cast<size_t>(part)]; }

int64_t find_step(const Block& block, StepKind kind) {
  const auto found = std::find(block.kinds.begin(), block.kinds.end(), kind);
  if (found == block.kinds.end()) throw Error("a block without a step that every block has");
  return found - block.kinds.begin();
}

const std::vector<Linear>& linears_of(const Block& block, StepKind kind) {
  return block.steps[find_step(block, kind)].linears;
}

// Where a fused linear puts the features of q, k and v, head by head.
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

// Queries, keys and values: matrices of their own, or columns of a fused one.
struct Heads {
  Matrix q_owner, k_owner, v_owner;
  MatrixView q, k, v;

  void own(Matrix& owner, MatrixView& view, Matrix matrix) {
    owner = std::move(matrix);
    view = owner;
  }
};

}  // namespace

Matrix Model::apply(Backend& backend, const Linear& linear, ConstMatrixView x) const {
  Matrix y(backend, dtype_, x.rows, linear.weight.rows());
  backend.linear(x, linear.weight, linear.bias, y);
  return y;
}

const Model::RopeMatrices& Model::rope_for(const Batch& batch, int64_t index, Backend& backend) {
  const Rope& kind = config_.ropes[index];
  int64_t length = 0;
  for (size_t s = 0; s + 1 < batch.offsets.size(); ++s)
    length = std::max(length, batch.offsets[s + 1] - batch.offsets[s]);
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

void Model::normalize(Backend& backend, ConstMatrixView x, const Affine& norm, MatrixView y) const {
  if (config_.architecture->norm == NormKind::layer)
    return backend.layer_norm(x, norm.weight, norm.bias, config_.norm_eps, y);
  backend.rms_norm(x, norm.weight, config_.norm_eps, y);
}

Matrix Model::normed_residual(const Block& block, Part norm, const Batch& batch) const {
  Matrix y = clone_shape(*block.backend, batch.residual);
  const Affine& part = part_of(block, norm);
  if (part.weight.empty()) {
    block.backend->convert(batch.residual, y);
  } else {
    normalize(*block.backend, batch.residual, part, y);
  }
  return y;
}

Matrix Model::mlp_input(const Block& block, const Batch& batch) const {
  const bool shares_norm = config_.parallel && part_of(block, Part::mlp_norm).weight.empty();
  return normed_residual(block, shares_norm ? Part::attention_norm : Part::mlp_norm, batch);
}

Matrix Model::attend(const Block& block, const Batch& batch) {
  Backend& backend = *block.backend;
  const Architecture& row = *config_.architecture;
  const BlockKind& kind = config_.kinds[block.index];
  const std::vector<Linear>& linears = linears_of(block, StepKind::attention_in);
  const AttentionShape shape{.heads = config_.heads,
                             .kv_heads = config_.kv_heads,
                             .head_dim = config_.head_dim,
                             .scale = kind.score_scale,
                             .soft_cap = config_.score_cap,
                             .window = kind.window,
                             .chunk = kind.chunk,
                             .slopes = block.slopes};
  const RopeMatrices* rope = kind.rope < 0 ? nullptr : &rope_for(batch, kind.rope, backend);
  const int64_t q_width = config_.heads * config_.head_dim, kv_width = config_.kv_heads * config_.head_dim;
  const bool is_fused = linears.size() == 1, is_shuffled = is_fused && row.qkv_order != QkvOrder::concatenated;
  const FusedColumns columns = is_shuffled ? fused_columns(config_) : FusedColumns();

  const auto project = [&](ConstMatrixView x) {
    Heads heads;
    if (!is_fused) {
      heads.own(heads.q_owner, heads.q, apply(backend, linears[0], x));
      heads.own(heads.k_owner, heads.k, apply(backend, linears[1], x));
      heads.own(heads.v_owner, heads.v, apply(backend, linears[2], x));
      return heads;
    }
    Matrix all = apply(backend, linears[0], x);
    if (!is_shuffled) {
      const MatrixView view = all;
      heads.q = view.col_range(0, q_width);
      heads.k = view.col_range(q_width, kv_width);
      heads.v = view.col_range(q_width + kv_width, kv_width);
      heads.q_owner = std::move(all);
      return heads;
    }
    const auto gather = [&](const std::vector<int32_t>& ids, Matrix& owner, MatrixView& view) {
      heads.own(owner, view, Matrix(backend, dtype_, x.rows, static_cast<int64_t>(ids.size())));
      backend.gather_columns(all, ids, view);
    };
    gather(columns.q, heads.q_owner, heads.q);
    gather(columns.k, heads.k_owner, heads.k);
    gather(columns.v, heads.v_owner, heads.v);
    return heads;
  };
  const auto normalize_heads = [&](Heads& heads) {
    Matrix q = clone_shape(backend, heads.q), k = clone_shape(backend, heads.k);
    normalize(backend, heads.q, part_of(block, Part::q_norm), q);
    normalize(backend, heads.k, part_of(block, Part::k_norm), k);
    // v may be a part of what q was.
    Matrix fused = std::exchange(heads.q_owner, std::move(q));
    heads.q = heads.q_owner;
    heads.own(heads.k_owner, heads.k, std::move(k));
    if (heads.v_owner.empty()) heads.v_owner = std::move(fused);
  };

  Matrix y(backend, dtype_, batch.tokens(), q_width);
  in_passes(batch, [&](Rows rows, SequenceOffsets offsets) {
    Heads heads = project(rows.of(batch.input.view()));
    if (config_.qkv_cap > 0) {
      for (const MatrixView x : {heads.q, heads.k, heads.v}) backend.cap(Cap::hard, config_.qkv_cap, x);
    }
    if (config_.qk_norm && !row.qk_norm_after_rope) normalize_heads(heads);
    if (rope != nullptr) {
      backend.rope(rope->cos, rope->sin, offsets, row.rotary_order, config_.head_dim, heads.q);
      backend.rope(rope->cos, rope->sin, offsets, row.rotary_order, config_.head_dim, heads.k);
    }
    if (config_.qk_norm && row.qk_norm_after_rope) normalize_heads(heads);
    backend.attention(heads.q, heads.k, heads.v, offsets, shape, rows.of(y));
  });
  return y;
}

Matrix Model::activate(const Block& block, const Batch& batch) {
  Backend& backend = *block.backend;
  const std::vector<Linear>& linears = linears_of(block, StepKind::mlp_in);
  const bool is_fused = linears[0].weight.rows() == 2 * config_.intermediate;
  Matrix y(backend, dtype_, batch.tokens(), config_.intermediate);
  in_passes(batch, [&](Rows rows, SequenceOffsets) {
    const ConstMatrixView x = rows.of(batch.input.view());
    const Matrix first = apply(backend, linears[0], x),
                 second = linears.size() > 1 ? apply(backend, linears[1], x) : Matrix();
    const ConstMatrixView gate = first.view().col_range(0, config_.intermediate);
    const ConstMatrixView up =
        is_fused ? first.view().col_range(config_.intermediate, config_.intermediate) : second.view();
    backend.gate(gate, up, config_.activation, rows.of(y));
  });
  return y;
}

void Model::add_to_residual(const Block& block, StepKind step, Part post_norm, ConstMatrixView input, Batch& batch) {
  Backend& backend = *block.backend;
  const Affine& norm = part_of(block, post_norm);
  in_passes(batch, [&](Rows rows, SequenceOffsets) {
    Matrix y = apply(backend, linears_of(block, step)[0], rows.of(input));
    if (!norm.weight.empty()) {
      Matrix normed = clone_shape(backend, y);
      normalize(backend, y, norm, normed);
      y = std::move(normed);
    }
    backend.add(y, config_.residual_scale, rows.of(batch.residual));
  });
}

void Model::rebuild_input(const Block& block, int64_t step, Batch& batch) {
  batch.is_rebuilt = true;
  const int64_t mlp_in = find_step(block, StepKind::mlp_in);
  const auto advance_from = [&](int64_t first) {
    for (int64_t s = first; s < step; ++s) advance(block, s, batch);
  };
  if (step < mlp_in || (step == mlp_in && !config_.parallel)) return advance_from(0);
  if (config_.parallel) {
    if (step < static_cast<int64_t>(block.steps.size())) advance_from(mlp_in);
    return;
  }
  if (step == mlp_in) return;
  batch.input = mlp_input(block, batch);
  advance_from(mlp_in + 1);
}

ConstMatrixView Model::advance(const Block& block, int64_t step, Batch& batch) {
  if (step >= static_cast<int64_t>(block.kinds.size()))
    throw Error(cat("a block has ", block.kinds.size(), " steps, not a step ", step));
  switch (block.kinds[step]) {
    case StepKind::attention_in:
      batch.input = normed_residual(block, Part::attention_norm, batch);
      break;
    case StepKind::attention_out:
      batch.input = attend(block, batch);
      break;
    case StepKind::mlp_in: {
      const Matrix attended = std::move(batch.input);
      batch.input = Matrix();
      const auto add_attention = [&] {
        add_to_residual(block, StepKind::attention_out, Part::attention_post_norm, attended, batch);
      };
      if (!config_.parallel) add_attention();
      batch.input = mlp_input(block, batch);
      if (config_.parallel && !batch.is_rebuilt) add_attention();
      break;
    }
    case StepKind::mlp_out:
      batch.input = activate(block, batch);
      break;
    case StepKind::head:
      throw Error("the head is no step of a block");
  }
  return batch.input;
}

void Model::finish(const Block& block, Batch& batch) {
  if (config_.parallel && batch.is_rebuilt) {
    // Both branches read the residual before either adds to it.
    const int64_t mlp_in = find_step(block, StepKind::mlp_in);
    for (int64_t s = 0; s < mlp_in; ++s) advance(block, s, batch);
    const Matrix attended = std::exchange(batch.input, Matrix());
    for (size_t s = static_cast<size_t>(mlp_in); s < block.steps.size(); ++s)
      advance(block, static_cast<int64_t>(s), batch);
    add_to_residual(block, StepKind::attention_out, Part::attention_post_norm, attended, batch);
  }
  add_to_residual(block, StepKind::mlp_out, Part::mlp_post_norm, batch.input, batch);
  batch.input = Matrix();
}

void Model::forward(const Block& block, Batch& batch) {
  for (size_t step = 0; step < block.steps.size(); ++step) advance(block, static_cast<int64_t>(step), batch);
  finish(block, batch);
}

Matrix Model::head_input(const Batch& batch) {
  Matrix y = clone_shape(*head_backend_, batch.residual);
  normalize(*head_backend_, batch.residual, final_norm(), y);
  return y;
}

Matrix Model::logits(const Batch& batch, int64_t first, int64_t count) {
  Backend& backend = *head_backend_;
  const ConstMatrixView hidden = batch.residual.view().row_range(first, count);
  Matrix normed = clone_shape(backend, hidden), logits(backend, DType::f32, count, config_.vocabulary);
  normalize(backend, hidden, final_norm(), normed);
  const Matrix& weight = head();
  backend.linear(normed, weight, head_bias_, logits);
  if (config_.logit_cap > 0) backend.cap(Cap::soft, config_.logit_cap, logits);
  return logits;
}

}  // namespace gptq
