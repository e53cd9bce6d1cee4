#include "model/mixture_of_experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "model/norm.h"
#include "model/routing.h"

namespace gptq {
namespace {

// y = x w' [rows, n] on the host, for a small float weight.
std::vector<float> products(Backend& backend, ConstMatrixView x, const Affine& weight) {
  Matrix y(backend, DType::f32, x.rows, weight.weight.rows());
  backend.run(ops::Linear{.x = x, .w = weight.weight, .bias = weight.bias, .y = y});
  return to_host<float>(backend, y);
}

}  // namespace

// Rows of an expert computed at a time: each expert's number if routing is balanced.
int64_t MixtureOfExperts::rows_at_once(const Batch& batch) const {
  constexpr int64_t kLeast = 64;
  const int64_t even = (batch.tokens() * config_.experts.chosen + config_.experts.count - 1) / config_.experts.count;
  return std::min(batch.tokens(), std::max(even, kLeast));
}

Matrix MixtureOfExperts::normed(const Block& block, Part norm, ConstMatrixView x) const {
  Matrix y(*block.backend, dtype_, x.rows, x.cols);
  normalize(*block.backend, config_, x, part_of(block, norm), y);
  return y;
}

void MixtureOfExperts::begin(const Block& block, Matrix x, Batch& batch) const {
  Backend& backend = *block.backend;
  const int64_t hidden = config_.hidden;
  batch.input = Matrix(backend, dtype_, batch.tokens(), (is_beside() ? 4 : 2) * hidden);
  const MatrixView shared = batch.input.view().col_range(is_beside() ? 2 * hidden : 0, hidden);
  backend.run(ops::Convert{.x = x, .y = shared});
  x = Matrix();
  backend.run(ops::Clear{.y = sum(batch)});
  if (is_beside()) {
    backend.run(ops::Clear{.y = shared_sum(batch)});
    const Matrix own = normed(block, Part::beside_norm, batch.hidden(hidden));
    backend.run(ops::Convert{.x = own, .y = batch.input.view().col_range(0, hidden)});
  }
  const Matrix router_input = is_beside() ? normed(block, Part::router_norm, batch.hidden(hidden)) : Matrix();
  const Matrix& choice_bias = part_of(block, Part::choice_bias).weight;
  batch.routing = route(products(backend, is_beside() ? router_input : input(batch), part_of(block, Part::router)),
                        choice_bias.empty() ? std::vector<float>() : to_host<float>(backend, choice_bias),
                        config_.expert_row, config_.experts);
  if (const Affine& scales = part_of(block, Part::expert_scales); !scales.weight.empty()) {
    const std::vector<float> factors = to_host<float>(backend, scales.weight);
    for (size_t expert = 0; expert < factors.size(); ++expert) {
      for (float& weight : batch.routing.weights[expert]) weight *= factors[expert];
    }
  }
  const Affine& shared_router = part_of(block, Part::shared_router);
  if (shared_router.weight.empty()) return;
  batch.routing.shared = products(backend, input(batch), shared_router);
  for (float& weight : batch.routing.shared) weight = 1 / (1 + std::exp(-weight));
}

ConstMatrixView MixtureOfExperts::output(const Block& block, Batch& batch) const {
  if (is_beside()) {
    const Matrix shared = normed(block, Part::shared_post_norm, shared_sum(batch)),
                 own = normed(block, Part::beside_post_norm, sum(batch));
    block.backend->run(ops::Convert{.x = shared, .y = sum(batch)});
    block.backend->run(ops::Add{.x = own, .factor = 1, .y = sum(batch)});
  }
  return sum(batch);
}

void MixtureOfExperts::add_shared(const Block& block, int64_t step, Batch& batch) const {
  Backend& backend = *block.backend;
  const Step& in = block.steps[static_cast<size_t>(step) - 1];
  const Linear& down = block.steps[static_cast<size_t>(step)].linears[0];
  const std::vector<float>& weights = batch.routing.shared;
  const int64_t each = rows_at_once(batch);
  for (int64_t first = 0; first < batch.tokens(); first += each) {
    const int64_t count = std::min(each, batch.tokens() - first);
    const Matrix activated = mlp_.activate_rows(backend, in, shared_input(batch).row_range(first, count), each);
    const Matrix all = apply(backend, down, activated.view().row_range(0, count), each);
    const ConstMatrixView y = all.view().row_range(0, count);
    if (weights.empty()) {
      backend.run(
          ops::Add{.x = y, .factor = config_.experts.shared_scale, .y = shared_sum(batch).row_range(first, count)});
      continue;
    }
    std::vector<int32_t> rows(static_cast<size_t>(count));
    std::iota(rows.begin(), rows.end(), 0);
    backend.run(ops::AddRows{.x = y,
                             .ids = rows,
                             .weights = std::span(weights).subspan(static_cast<size_t>(first), rows.size()),
                             .y = shared_sum(batch).row_range(first, count)});
  }
}

// The input of an expert's step for some rows of a batch, in a matrix of rows_at_once() rows: all pieces take the same.
Matrix MixtureOfExperts::expert_input(const Block& block, int64_t step, const Batch& batch,
                                      std::span<const int32_t> rows, std::span<const float> weights) const {
  Backend& backend = *block.backend;
  const bool is_out = block.kinds[static_cast<size_t>(step)] == StepKind::expert_out;
  const int64_t room = rows_at_once(batch), count = static_cast<int64_t>(rows.size());
  Matrix x(backend, dtype_, room, config_.hidden);
  backend.run(ops::GatherRows{.table = input(batch), .ids = rows, .y = x.view().row_range(0, count)});
  if (config_.expert_row.weighs_inputs) {
    Matrix weighed(backend, dtype_, room, x.cols());
    std::vector<int32_t> own(rows.size());
    std::iota(own.begin(), own.end(), 0);
    backend.run(ops::Clear{.y = weighed});
    backend.run(ops::AddRows{.x = x.view().row_range(0, count), .ids = own, .weights = weights, .y = weighed});
    x = std::move(weighed);
  }
  if (!is_out) return x;
  const Step& in = block.steps[static_cast<size_t>(step) - 1];
  return mlp_.activate_rows(backend, in, x.view().row_range(0, count), room);
}

void MixtureOfExperts::add_expert(const Block& block, int64_t step, Batch& batch) const {
  Backend& backend = *block.backend;
  const auto expert = static_cast<size_t>(block.experts[static_cast<size_t>(step)]);
  const Linear& down = block.steps[static_cast<size_t>(step)].linears[0];
  const std::span<const int32_t> rows = batch.routing.rows[expert];
  const std::span<const float> weights = batch.routing.weights[expert];
  const std::vector<float> ones(weights.size(), 1.0F);
  const std::span<const float> of_outputs = config_.expert_row.weighs_inputs ? ones : weights;
  const auto each = static_cast<size_t>(rows_at_once(batch));
  for (size_t first = 0; first < rows.size(); first += each) {
    const size_t count = std::min(each, rows.size() - first);
    const Matrix x = expert_input(block, step, batch, rows.subspan(first, count), weights.subspan(first, count));
    const auto piece = static_cast<int64_t>(count);
    const Matrix y = apply(backend, down, x.view().row_range(0, piece), static_cast<int64_t>(each));
    backend.run(ops::AddRows{.x = y.view().row_range(0, piece),
                             .ids = rows.subspan(first, count),
                             .weights = of_outputs.subspan(first, count),
                             .y = sum(batch)});
  }
}

void MixtureOfExperts::visit_inputs(const Block& block, int64_t step, const Batch& batch, OriginalBatch original,
                                    bool all_tokens, const VisitInputs& visit) const {
  const bool is_expert = block.kinds[static_cast<size_t>(step)] != StepKind::shared_out;
  std::vector<int32_t> rows;
  std::vector<float> weights;
  if (is_expert && !all_tokens) {
    const auto expert = static_cast<size_t>(block.experts[static_cast<size_t>(step)]);
    rows = batch.routing.rows[expert];
    weights = batch.routing.weights[expert];
  } else {
    rows.resize(static_cast<size_t>(batch.tokens()));
    std::iota(rows.begin(), rows.end(), 0);
    weights.assign(rows.size(), 1.0F);
  }
  const auto each = static_cast<size_t>(rows_at_once(batch));
  for (size_t first = 0; first < rows.size(); first += each) {
    const size_t count = std::min(each, rows.size() - first);
    const auto piece = std::span<const int32_t>(rows).subspan(first, count);
    const auto piece_weights = std::span<const float>(weights).subspan(first, count);
    const auto input_of = [&](const Block& of, const Batch& from) {
      if (is_expert) return expert_input(of, step, from, piece, piece_weights);
      const Step& in = of.steps[static_cast<size_t>(step) - 1];
      const ConstMatrixView x = shared_input(from).row_range(static_cast<int64_t>(first), static_cast<int64_t>(count));
      return mlp_.activate_rows(*of.backend, in, x, static_cast<int64_t>(each));
    };
    const Matrix x = input_of(block, batch);
    const Matrix y = original.batch == nullptr ? Matrix() : input_of(*original.block, *original.batch);
    const auto of_rows = [&](const Matrix& all) {
      return all.empty() ? ConstMatrixView() : all.view().row_range(0, static_cast<int64_t>(count));
    };
    visit(of_rows(x), of_rows(y));
  }
}

}  // namespace gptq
