#include "model/altup.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "model/norm.h"

namespace gptq {
namespace {

Matrix copy_of(Backend& backend, ConstMatrixView x, DType dtype) {
  Matrix y(backend, dtype, x.rows, x.cols);
  backend.run(ops::Convert{.x = x, .y = y});
  return y;
}

// y += weights[first + row * stride] x, row by row
void add_weighted(Backend& backend, ConstMatrixView x, const std::vector<float>& weights, int64_t first, int64_t stride,
                  MatrixView y) {
  std::vector<int32_t> ids(static_cast<size_t>(x.rows));
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<float> own(ids.size());
  for (size_t row = 0; row < own.size(); ++row) own[row] = weights[static_cast<size_t>(first) + row * stride];
  backend.run(ops::AddRows{.x = x, .ids = ids, .weights = own, .y = y});
}

std::vector<float> mean_squares(Backend& backend, ConstMatrixView x) {
  Matrix squares = zeros(backend, DType::f32, x.rows, 1);
  backend.run(ops::AddRowNorms{.x = x, .norms = squares});
  std::vector<float> means = to_host<float>(backend, squares);
  for (float& mean : means) mean /= static_cast<float>(x.cols);
  return means;
}

// y += factor x w', with the root mean squares of `like`, row by row
void add_projection(Backend& backend, ConstMatrixView x, const Affine& projection, ConstMatrixView like, float factor,
                    MatrixView y) {
  constexpr float kLeast = 1e-5F;  // mean square, as in transformers
  Matrix projected(backend, y.dtype, x.rows, y.cols);
  backend.run(ops::Linear{.x = x, .w = projection.weight, .bias = {}, .y = projected});
  std::vector<float> weights = mean_squares(backend, like);
  const std::vector<float> own = mean_squares(backend, projected);
  for (size_t row = 0; row < weights.size(); ++row)
    weights[row] = factor * std::sqrt(weights[row]) / std::sqrt(std::max(own[row], kLeast));
  add_weighted(backend, projected, weights, 0, 1, y);
}

}  // namespace

std::vector<PartSpec> altup_projections(const ModelConfig& config, std::string_view list) {
  std::vector<PartSpec> specs;
  for (int64_t other = 1; other < config.residuals; ++other) {
    specs.push_back(
        {.weights = {tensor_name(config, cat(list, ".", other - 1))}, .rows = config.hidden, .cols = config.hidden});
  }
  return specs;
}

// The first column of a residual, or of the kept prediction, which is behind the last one.
int64_t AltUp::place(int64_t residual) const {
  return residual == 0 ? 0 : config_.residuals_at + (residual - 1) * config_.hidden;
}

std::vector<MatrixView> AltUp::others(Batch& batch) const {
  std::vector<MatrixView> views;
  for (int64_t index = 1; index < count(); ++index) views.push_back(residual(batch, index));
  return views;
}

// [tokens, rows of the part]: the part's product with tanh(router norm(x)), on the host.
std::vector<float> AltUp::coefficients(const Block& block, Part part, ConstMatrixView x) const {
  Backend& backend = *block.backend;
  Matrix normed(backend, x.dtype, x.rows, x.cols), routed(backend, DType::f32, x.rows, count());
  normalize(backend, config_, x, part_of(block, Part::altup_norm), normed);
  backend.run(ops::Linear{.x = normed, .w = part_of(block, Part::altup_router).weight, .bias = {}, .y = routed});
  std::vector<float> modalities = to_host<float>(backend, routed);
  for (float& value : modalities) value = std::tanh(value);
  const std::vector<float> weight = to_host<float>(backend, part_of(block, part).weight);
  const int64_t inputs = count(), outputs = static_cast<int64_t>(weight.size()) / inputs;
  std::vector<float> result(static_cast<size_t>(x.rows * outputs));
  for (int64_t row = 0; row < x.rows; ++row) {
    for (int64_t out = 0; out < outputs; ++out) {
      const auto from = modalities.begin() + row * inputs;
      result[static_cast<size_t>(row * outputs + out)] =
          std::inner_product(from, from + inputs, weight.begin() + out * inputs, 0.0F);
    }
  }
  return result;
}

// A residual and all of them times its coefficients [tokens, count of `index`, count].
Matrix AltUp::prediction(const Block& block, const std::vector<float>& coefficients, const Batch& batch,
                         int64_t index) const {
  Backend& backend = *block.backend;
  const ConstMatrixView own = residual(batch, index);
  Matrix y = copy_of(backend, own, own.dtype);
  for (int64_t from = 0; from < count(); ++from)
    add_weighted(backend, residual(batch, from), coefficients, index * count() + from, count() * count(), y);
  return y;
}

Matrix AltUp::predicted(const Block& block, const Batch& batch) const {
  return prediction(block, coefficients(block, Part::altup_predictions, residual(batch, 0)), batch, 0);
}

void AltUp::predict(const Block& block, Batch& batch) const {
  const std::vector<float> weights = coefficients(block, Part::altup_predictions, residual(batch, 0));
  std::vector<Matrix> predictions;
  for (int64_t index = 0; index < count(); ++index) predictions.push_back(prediction(block, weights, batch, index));
  for (int64_t index = 0; index < count(); ++index)
    block.backend->run(ops::Convert{.x = predictions[static_cast<size_t>(index)], .y = residual(batch, index)});
  block.backend->run(ops::Convert{.x = predictions[0], .y = residual(batch, count())});
}

// Adds the change of the first residual to each of them, times one and its coefficient.
void AltUp::correct(const Block& block, Batch& batch) const {
  Backend& backend = *block.backend;
  const MatrixView first = residual(batch, 0), kept = residual(batch, count());
  std::vector<float> weights = coefficients(block, Part::altup_corrections, first);
  for (float& weight : weights) weight += 1;
  Matrix change = copy_of(backend, first, first.dtype);
  backend.run(ops::Add{.x = kept, .factor = -1, .y = change});
  backend.run(ops::Convert{.x = kept, .y = first});
  for (int64_t index = 0; index < count(); ++index)
    add_weighted(backend, change, weights, index, count(), residual(batch, index));
}

void AltUp::embed(Backend& backend, const std::vector<Affine>& projections, Batch& batch) const {
  const ConstMatrixView first = residual(batch, 0);
  for (int64_t index = 1; index < count(); ++index) {
    add_projection(backend, first, projections[static_cast<size_t>(index) - 1], first, 1, residual(batch, index));
  }
}

Matrix AltUp::joined(Backend& backend, const std::vector<Affine>& projections, ConstMatrixView states) const {
  const float share = 1 / static_cast<float>(count());
  const ConstMatrixView first = states.col_range(0, config_.hidden);
  Matrix mean = zeros(backend, states.dtype, states.rows, config_.hidden);
  backend.run(ops::Add{.x = first, .factor = share, .y = mean});
  for (int64_t index = 1; index < count(); ++index) {
    add_projection(backend, states.col_range(place(index), config_.hidden), projections[static_cast<size_t>(index) - 1],
                   first, share, mean);
  }
  return mean;
}

}  // namespace gptq
