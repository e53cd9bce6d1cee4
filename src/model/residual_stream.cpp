#include "model/residual_stream.h"

#include <cmath>
#include <vector>

#include "model/columns.h"
#include "model/norm.h"

namespace gptq {
namespace {

// x *= factor
void multiply(Backend& backend, float factor, MatrixView x) {
  Matrix copy(backend, x.dtype, x.rows, x.cols);
  backend.run(ops::Convert{.x = x, .y = copy});
  backend.run(ops::Clear{.y = x});
  backend.run(ops::Add{.x = copy, .factor = factor, .y = x});
}

}  // namespace

Matrix ResidualStream::mixer_input(const Block& block, const Batch& batch) const {
  if (config_.residuals > 1) return normed(block, Part::attention_norm, altup_.predicted(block, batch));
  return normed(block, Part::attention_norm, batch.hidden(config_.hidden));
}

Matrix ResidualStream::mlp_input(const Block& block, const Batch& batch) const {
  const bool shares_norm = config_.parallel && part_of(block, Part::mlp_norm).weight.empty();
  return normed(block, shares_norm ? Part::attention_norm : Part::mlp_norm, batch.hidden(config_.hidden));
}

Matrix ResidualStream::normed(const Block& block, Part norm, ConstMatrixView x) const {
  Matrix y(*block.backend, dtype_, x.rows, x.cols);
  const Affine& part = part_of(block, norm);
  if (part.weight.empty()) {
    block.backend->run(ops::Convert{.x = x, .y = y});
  } else {
    normalize(*block.backend, config_, x, part, y);
  }
  return y;
}

// x + norm(right (left x)) of the mixer's input x.
Matrix ResidualStream::laurel(const Block& block, const Batch& batch) const {
  Backend& backend = *block.backend;
  Matrix x = mixer_input(block, batch);
  Matrix low(backend, dtype_, x.rows(), config_.laurel_rank), y(backend, dtype_, x.rows(), x.cols());
  backend.run(ops::Linear{.x = x, .w = part_of(block, Part::laurel_left).weight, .bias = {}, .y = low});
  backend.run(ops::Linear{.x = low, .w = part_of(block, Part::laurel_right).weight, .bias = {}, .y = y});
  backend.run(ops::Add{.x = normed(block, Part::laurel_norm, y), .factor = 1, .y = x});
  return x;
}

ConstMatrixView ResidualStream::input_of(const Block& block, StepKind step, ConstMatrixView mixed) const {
  if (config_.kinds[static_cast<size_t>(block.index)].mixer != Mixer::attention_and_state_space) return mixed;
  const int64_t attended = config_.heads * config_.head_dim;
  return step == StepKind::attention_out ? mixed.col_range(0, attended)
                                         : mixed.col_range(attended, mixed.cols - attended);
}

void ResidualStream::add_mixer(const Block& block, ConstMatrixView input, Batch& batch) {
  const Matrix beside = config_.laurel_rank > 0 ? laurel(block, batch) : Matrix();
  if (config_.residuals > 1) altup_.predict(block, batch);
  for (const StepKind step : block.kinds) {
    if (!ends_mixer(step)) continue;
    const float scale = step == StepKind::attention_out ? config_.attention_scale : config_.state_space_scale;
    add_linear(block, step, Part::attention_post_norm, input_of(block, step, input), scale, batch);
  }
  if (beside.empty()) return;
  block.backend->run(ops::Add{.x = beside, .factor = 1, .y = batch.hidden(config_.hidden)});
  multiply(*block.backend, std::sqrt(0.5F), batch.hidden(config_.hidden));
}

void ResidualStream::add_mlp(const Block& block, ConstMatrixView input, Batch& batch) {
  add_linear(block, StepKind::mlp_out, Part::mlp_post_norm, input, config_.mlp_scale, batch);
}

void ResidualStream::add_experts(const Block& block, ConstMatrixView output, Batch& batch) const {
  add(block, Part::mlp_post_norm, output, 1, batch.hidden(config_.hidden));
}

void ResidualStream::add_linear(const Block& block, StepKind step, Part post_norm, ConstMatrixView input, float scale,
                                Batch& batch) {
  micro_batches_.for_each(batch, [&](Rows rows, SequenceOffsets) {
    const Linear& linear = linears_of(block, step)[0];
    if (part_of(block, post_norm).weight.empty() && is_fused(*block.backend, linear, dtype_)) {
      return block.backend->run(ops::AddLinear{.x = rows.of(input),
                                               .w = linear.weight,
                                               .bias = linear.bias,
                                               .factor = config_.residual_scale * scale,
                                               .y = rows.of(batch.residual).col_range(0, config_.hidden)});
    }
    const Matrix y = apply(*block.backend, linear, rows.of(input));
    add(block, post_norm, y, scale, rows.of(batch.residual).col_range(0, config_.hidden));
  });
}

void ResidualStream::end_block(const Block& block, Batch& batch) const {
  if (config_.residuals > 1) altup_.correct(block, batch);
  if (config_.per_block > 0) add_per_block(block, batch);
  const Affine& factor = part_of(block, Part::block_scale);
  if (factor.weight.empty()) return;
  multiply(*block.backend, to_host<float>(*block.backend, factor.weight)[0], batch.hidden(config_.hidden));
}

// Adds norm(out (activation(gate hidden) * the block's embedding)): to the other residuals where there are several.
void ResidualStream::add_per_block(const Block& block, Batch& batch) const {
  Backend& backend = *block.backend;
  const MatrixView hidden = batch.hidden(config_.hidden);
  const auto matrix = [&](int64_t cols) { return Matrix(backend, dtype_, hidden.rows, cols); };
  Matrix x = matrix(config_.hidden), gate = matrix(config_.per_block), own = matrix(config_.per_block),
         y = matrix(config_.hidden);
  backend.run(ops::Convert{.x = hidden, .y = x});
  if (const Affine& factors = part_of(block, Part::altup_scale); !factors.weight.empty()) {
    const Matrix all = outer_product(backend, DType::f32, ones(backend, x.rows(), 1), factors.weight);
    backend.run(ops::Gate{.gate = hidden, .up = all, .activation = Activation::identity, .y = x});
  }
  backend.run(ops::Linear{.x = x, .w = part_of(block, Part::per_block_gate).weight, .bias = {}, .y = gate});
  backend.run(ops::Convert{
      .x = batch.residual.view().col_range(config_.hidden + block.index * config_.per_block, config_.per_block),
      .y = own});
  Matrix gated = matrix(config_.per_block);
  backend.run(ops::Gate{.gate = gate, .up = own, .activation = config_.activation, .y = gated});
  backend.run(ops::Linear{.x = gated, .w = part_of(block, Part::per_block_out).weight, .bias = {}, .y = y});
  const std::vector<MatrixView> to = config_.residuals > 1 ? altup_.others(batch) : std::vector{hidden};
  for (const MatrixView residual : to) add(block, Part::per_block_norm, y, 1, residual);
}

void ResidualStream::add(const Block& block, Part post_norm, ConstMatrixView y, float scale,
                         MatrixView residual) const {
  Backend& backend = *block.backend;
  const Affine& norm = part_of(block, post_norm);
  const float factor = config_.residual_scale * scale;
  if (norm.weight.empty()) return backend.run(ops::Add{.x = y, .factor = factor, .y = residual});
  Matrix normed(backend, y.dtype, y.rows, y.cols);
  normalize(backend, config_, y, norm, normed);
  backend.run(ops::Add{.x = normed, .factor = factor, .y = residual});
}

}  // namespace gptq
