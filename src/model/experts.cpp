// Model: the forward pass of a block with experts. Each expert computes the rows of its tokens, a bounded number at a
// time, so that memory does not depend on routing balance.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "model/model.h"
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
int64_t Model::rows_at_once(const Batch& batch) const {
  constexpr int64_t kLeast = 64;
  const int64_t even = (batch.tokens() * config_.experts.chosen + config_.experts.count - 1) / config_.experts.count;
  return std::min(batch.tokens(), std::max(even, kLeast));
}

void Model::begin_experts(const Block& block, Batch& batch) {
  Backend& backend = *block.backend;
  const int64_t hidden = config_.hidden;
  {
    const Matrix x = mlp_input(block, batch);
    batch.input = Matrix(backend, dtype_, batch.tokens(), 2 * hidden);
    backend.run(ops::Convert{.x = x, .y = batch.input.view().col_range(0, hidden)});
  }
  backend.run(ops::Clear{.y = batch.input.view().col_range(hidden, hidden)});
  const ConstMatrixView x = batch.input.view().col_range(0, hidden);
  const Matrix& choice_bias = part_of(block, Part::choice_bias).weight;
  batch.routing = route(products(backend, x, part_of(block, Part::router)),
                        choice_bias.empty() ? std::vector<float>() : to_host<float>(backend, choice_bias),
                        *config_.architecture, config_.experts);
  const Affine& shared_router = part_of(block, Part::shared_router);
  if (shared_router.weight.empty()) return;
  batch.routing.shared = products(backend, x, shared_router);
  for (float& weight : batch.routing.shared) weight = 1 / (1 + std::exp(-weight));
}

void Model::add_shared(const Block& block, int64_t step, Batch& batch) {
  Backend& backend = *block.backend;
  const Step& in = block.steps[static_cast<size_t>(step) - 1];
  const Linear& down = block.steps[static_cast<size_t>(step)].linears[0];
  const ConstMatrixView x = batch.input.view().col_range(0, config_.hidden);
  const MatrixView sum = batch.input.view().col_range(config_.hidden, config_.hidden);
  const std::vector<float>& weights = batch.routing.shared;
  const int64_t each = rows_at_once(batch);
  for (int64_t first = 0; first < batch.tokens(); first += each) {
    const int64_t count = std::min(each, batch.tokens() - first);
    Matrix activated(backend, dtype_, each, activated_width(in));
    activate(backend, in, x.row_range(first, count), activated.view().row_range(0, count), each);
    const Matrix all = apply(backend, down, activated.view().row_range(0, count), each);
    const ConstMatrixView y = all.view().row_range(0, count);
    if (weights.empty()) {
      backend.run(ops::Add{.x = y, .factor = 1, .y = sum.row_range(first, count)});
      continue;
    }
    std::vector<int32_t> rows(static_cast<size_t>(count));
    std::iota(rows.begin(), rows.end(), 0);
    backend.run(ops::AddRows{.x = y,
                             .ids = rows,
                             .weights = std::span(weights).subspan(static_cast<size_t>(first), rows.size()),
                             .y = sum.row_range(first, count)});
  }
}

Matrix Model::expert_input(const Block& block, int64_t step, const Batch& batch, std::span<const int32_t> rows,
                           std::span<const float> weights) const {
  Backend& backend = *block.backend;
  const bool is_out = block.kinds[static_cast<size_t>(step)] == StepKind::expert_out;
  const int64_t room = rows_at_once(batch), count = static_cast<int64_t>(rows.size());
  Matrix x(backend, dtype_, room, config_.hidden);
  backend.run(ops::GatherRows{
      .table = batch.input.view().col_range(0, config_.hidden), .ids = rows, .y = x.view().row_range(0, count)});
  if (config_.architecture->experts.weighs_inputs) {
    Matrix weighed(backend, dtype_, room, x.cols());
    std::vector<int32_t> own(rows.size());
    std::iota(own.begin(), own.end(), 0);
    backend.run(ops::Clear{.y = weighed});
    backend.run(ops::AddRows{.x = x.view().row_range(0, count), .ids = own, .weights = weights, .y = weighed});
    x = std::move(weighed);
  }
  if (!is_out) return x;
  const Step& in = block.steps[static_cast<size_t>(step) - 1];
  Matrix activated(backend, dtype_, room, activated_width(in));
  activate(backend, in, x.view().row_range(0, count), activated.view().row_range(0, count), room);
  return activated;
}

void Model::add_expert(const Block& block, int64_t step, Batch& batch) {
  Backend& backend = *block.backend;
  const auto expert = static_cast<size_t>(block.experts[static_cast<size_t>(step)]);
  const Linear& down = block.steps[static_cast<size_t>(step)].linears[0];
  const std::span<const int32_t> rows = batch.routing.rows[expert];
  const std::span<const float> weights = batch.routing.weights[expert];
  const std::vector<float> ones(weights.size(), 1.0F);
  const std::span<const float> of_outputs = config_.architecture->experts.weighs_inputs ? ones : weights;
  const MatrixView sum = batch.input.view().col_range(config_.hidden, config_.hidden);
  const auto each = static_cast<size_t>(rows_at_once(batch));
  for (size_t first = 0; first < rows.size(); first += each) {
    const size_t count = std::min(each, rows.size() - first);
    const Matrix x = expert_input(block, step, batch, rows.subspan(first, count), weights.subspan(first, count));
    const auto piece = static_cast<int64_t>(count);
    const Matrix y = apply(backend, down, x.view().row_range(0, piece), static_cast<int64_t>(each));
    backend.run(ops::AddRows{.x = y.view().row_range(0, piece),
                             .ids = rows.subspan(first, count),
                             .weights = of_outputs.subspan(first, count),
                             .y = sum});
  }
}

void Model::visit_inputs(const Block& block, int64_t step, const Batch& batch, Original original, bool all_tokens,
                         const VisitInputs& visit) const {
  const StepKind kind = block.kinds[static_cast<size_t>(step)];
  const bool is_expert = kind == StepKind::expert_in || kind == StepKind::expert_out;
  if (!is_expert && kind != StepKind::shared_out) {
    return visit(input(block, step, batch),
                 original.batch == nullptr ? ConstMatrixView() : input(*original.block, step, *original.batch));
  }
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
      const ConstMatrixView x = from.input.view().col_range(0, config_.hidden);
      Matrix activated(*of.backend, dtype_, static_cast<int64_t>(each), activated_width(in));
      activate(*of.backend, in, x.row_range(static_cast<int64_t>(first), static_cast<int64_t>(count)),
               activated.view().row_range(0, static_cast<int64_t>(count)), static_cast<int64_t>(each));
      return activated;
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
