#include "model/state_space_mixer.h"

#include <array>

namespace gptq {
namespace {

// x with neighbouring columns, widths[i] of them, multiplied by factors[i].
template <size_t kCount>
Matrix scaled(Backend& backend, ConstMatrixView x, const std::array<int64_t, kCount>& widths,
              const std::array<float, kCount>& factors) {
  Matrix y = zeros(backend, x.dtype, x.rows, x.cols);
  int64_t first = 0;
  for (size_t i = 0; i < kCount; ++i) {
    backend.run(
        ops::Add{.x = x.col_range(first, widths[i]), .factor = factors[i], .y = y.view().col_range(first, widths[i])});
    first += widths[i];
  }
  return y;
}

// y = norm(x) over each of `groups` groups of columns.
void normalize_groups(Backend& backend, ConstMatrixView x, const Affine& norm, int64_t groups, float eps,
                      MatrixView y) {
  const ConstMatrixView weight(norm.weight.view().data, DType::f32, groups, x.cols / groups);
  backend.run(ops::RmsNorm{.x = x, .weight = weight, .eps = eps, .y = y});
}

// The same in a new matrix; x itself where there is no norm.
ConstMatrixView normed(Backend& backend, ConstMatrixView x, const Affine& norm, int64_t groups, float eps, Matrix& y) {
  if (norm.weight.empty()) return x;
  y = Matrix(backend, x.dtype, x.rows, x.cols);
  normalize_groups(backend, x, norm, groups, eps, y);
  return y;
}

}  // namespace

void StateSpaceMixer::mix(const Block& block, const Linear& in, const Batch& batch, MatrixView y) {
  micro_batches_.for_each(batch, [&](Rows rows, SequenceOffsets offsets) {
    const Matrix projected = apply(*block.backend, in, rows.of(batch.input.view()));
    const MatrixView to = y.row_range(rows.first, rows.count);
    config_.architecture->state_space.scans ? mix_scan(block, projected, offsets, to)
                                            : mix_dual(block, projected, offsets, to);
  });
}

// The projection makes the gate, x, b, c and dt.
void StateSpaceMixer::mix_dual(const Block& block, ConstMatrixView projected, SequenceOffsets offsets,
                               MatrixView y) const {
  Backend& backend = *block.backend;
  const StateSpace& space = config_.state_space;
  const int64_t width = space.width(), of_groups = space.groups * space.state;
  Matrix scaled_owner;
  if (space.is_scaled()) {
    scaled_owner =
        scaled(backend, projected, std::array{width, width, of_groups, of_groups, space.heads}, space.multipliers);
    projected = scaled_owner;
  }
  const Matrix convolved = convolve(block, projected.col_range(width, width + 2 * of_groups), offsets);
  const ConstMatrixView xbc = convolved;
  Matrix mixed(backend, dtype_, y.rows, width);
  backend.run(ops::StateSpaceDual{.x = xbc.col_range(0, width),
                                  .dt = projected.col_range(2 * width + 2 * of_groups, space.heads),
                                  .b = xbc.col_range(width, of_groups),
                                  .c = xbc.col_range(width + of_groups, of_groups),
                                  .dt_bias = part_of(block, Part::step_bias).weight,
                                  .a_log = part_of(block, Part::decay).weight,
                                  .d = part_of(block, Part::skip).weight,
                                  .offsets = offsets,
                                  .shape = {.heads = space.heads,
                                            .head_dim = space.head_dim,
                                            .groups = space.groups,
                                            .state = space.state,
                                            .min_step = space.min_step,
                                            .max_step = space.max_step},
                                  .y = mixed});
  gate(block, mixed, projected.col_range(0, width), y);
}

void StateSpaceMixer::gate(const Block& block, ConstMatrixView mixed, ConstMatrixView gate, MatrixView y) const {
  Backend& backend = *block.backend;
  const Affine& norm = part_of(block, Part::gated_norm);
  const int64_t groups = config_.state_space.groups;
  Matrix owner;
  const auto multiply = [&](ConstMatrixView x, MatrixView to) {
    backend.run(ops::Gate{.gate = gate, .up = x, .activation = Activation::silu, .y = to});
  };
  if (norm.weight.empty() || config_.state_space.norm_before_gate)
    return multiply(normed(backend, mixed, norm, groups, config_.norm_eps, owner), y);
  Matrix gated(backend, dtype_, y.rows, y.cols);
  multiply(mixed, gated);
  normalize_groups(backend, gated, norm, groups, config_.norm_eps, y);
}

// The projection makes x and the gate; b, c and what makes dt are projections of the convolved x.
void StateSpaceMixer::mix_scan(const Block& block, ConstMatrixView projected, SequenceOffsets offsets,
                               MatrixView y) const {
  Backend& backend = *block.backend;
  const StateSpace& space = config_.state_space;
  const int64_t width = space.width(), rank = space.rank, state = space.state;
  const Matrix x = convolve(block, projected.col_range(0, width), offsets);
  Matrix selected(backend, dtype_, y.rows, rank + 2 * state), dt(backend, dtype_, y.rows, width),
      mixed(backend, dtype_, y.rows, width), normed_dt, normed_b, normed_c;
  const Affine &selection = part_of(block, Part::selection), &steps = part_of(block, Part::step_projection);
  backend.run(ops::Linear{.x = x, .w = selection.weight, .y = selected});
  const ConstMatrixView all = selected;
  const auto norm = [&](ConstMatrixView columns, Part part, Matrix& owner) {
    return normed(backend, columns, part_of(block, part), 1, space.selection_eps, owner);
  };
  backend.run(ops::Linear{
      .x = norm(all.col_range(0, rank), Part::step_norm, normed_dt), .w = steps.weight, .bias = steps.bias, .y = dt});
  backend.run(ops::SelectiveScan{.x = x,
                                 .dt = dt,
                                 .b = norm(all.col_range(rank, state), Part::b_norm, normed_b),
                                 .c = norm(all.col_range(rank + state, state), Part::c_norm, normed_c),
                                 .a_log = part_of(block, Part::decay).weight,
                                 .d = part_of(block, Part::skip).weight,
                                 .offsets = offsets,
                                 .y = mixed});
  gate(block, mixed, projected.col_range(width, width), y);
}

Matrix StateSpaceMixer::convolve(const Block& block, ConstMatrixView x, SequenceOffsets offsets) const {
  const Affine& convolution = part_of(block, Part::convolution);
  Matrix y(*block.backend, dtype_, x.rows, x.cols);
  block.backend->run(ops::CausalConvolution{.x = x,
                                            .weight = convolution.weight,
                                            .bias = convolution.bias,
                                            .offsets = offsets,
                                            .activation = Activation::silu,
                                            .y = y});
  return y;
}

}  // namespace gptq
