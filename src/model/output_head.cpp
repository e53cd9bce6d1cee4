#include "model/output_head.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "model/altup.h"
#include "model/norm.h"
#include "model/tensor_checks.h"
#include "model/tensor_reader.h"
#include "tensor/nonfinite.h"

namespace gptq {
namespace {

// Normalizes each row to length 1, rounded to its dtype.
void scale_rows_to_one(MatrixView rows) {
  std::vector<float> wide(static_cast<size_t>(rows.cols));
  const MatrixView one(wide.data(), DType::f32, 1, rows.cols);
  for (int64_t r = 0; r < rows.rows; ++r) {
    reference(ops::Convert{.x = rows.row_range(r, 1), .y = one});
    double squares = 0;
    for (const float value : wide) squares += static_cast<double>(value) * value;
    const double length = std::max(std::sqrt(squares), 1e-12);
    for (float& value : wide) value = static_cast<float>(value / length);
    reference(ops::Convert{.x = one, .y = rows.row_range(r, 1)});
  }
}

}  // namespace

Matrix OutputHead::input(const Batch& batch) { return transformed(batch.residual); }

Matrix OutputHead::transformed(ConstMatrixView states) {
  const Matrix joined =
      config_.residuals > 1 ? AltUp(config_).joined(*backend_, unembed_projections(), states) : Matrix();
  const ConstMatrixView hidden = joined.empty() ? states.col_range(0, config_.hidden) : joined.view();
  const auto matrix = [&] { return Matrix(*backend_, dtype_, hidden.rows, hidden.cols); };
  Matrix y = matrix();
  normalize(*backend_, config_, hidden, norm(), y);
  const Architecture& row = *config_.architecture;
  if (row.head_dense.empty()) return y;
  const TensorReader tensors(checkpoint_, host_memory());
  if (dense_.weight.empty()) {
    const PartSpec dense{
        .weights = {cat(row.head_dense, ".weight")}, .bias = {}, .rows = config_.hidden, .cols = config_.hidden};
    dense_ = place_part(tensors.read_part(dense), *backend_);
    head_norm_ =
        place_part(tensors.read_part(norm_spec(config_, std::string(row.head_norm), 1, config_.hidden)), *backend_);
  }
  Matrix x = matrix(), activated = matrix();
  backend_->run(ops::Linear{.x = y, .w = dense_.weight, .bias = {}, .y = x});
  backend_->run(ops::Gate{.gate = x, .up = {}, .activation = config_.activation, .y = activated});
  normalize(*backend_, config_, activated, head_norm_, y);
  return y;
}

Matrix OutputHead::logits(const Batch& batch, int64_t first, int64_t count) {
  Backend& backend = *backend_;
  const Matrix normed = transformed(batch.residual.view().row_range(first, count));
  Matrix logits(backend, DType::f32, count, config_.vocabulary);
  multiply(backend, head(), normed, logits);
  if (config_.logit_cap > 0) backend.run(ops::Cap{.kind = ops::Cap::soft, .bound = config_.logit_cap, .x = logits});
  return logits;
}

void OutputHead::set_blank() {
  if (!config_.has_head) return;
  const ConstMatrixView like = checkpoint_.tensor(head_tensor(config_)).matrix();
  norm_.weight = Matrix(*backend_, DType::f32, 1, config_.hidden);
  if (config_.norm_bias) norm_.bias = Matrix(*backend_, DType::f32, 1, config_.hidden);
  if (!config_.architecture->head_dense.empty()) {
    dense_.weight = Matrix(*backend_, DType::f32, config_.hidden, config_.hidden);
    head_norm_.weight = Matrix(*backend_, DType::f32, 1, config_.hidden);
    if (config_.norm_bias) head_norm_.bias = Matrix(*backend_, DType::f32, 1, config_.hidden);
  }
  for (const PartSpec& spec : altup_projections(config_, config_.architecture->altup.unembed_projections))
    unembed_projections_.push_back({.weight = Matrix(*backend_, DType::f32, spec.rows, spec.cols), .bias = {}});
  head_.weight = Matrix(*backend_, like.dtype, like.rows, like.cols);
  if (config_.head_bias) head_.bias = Matrix(*backend_, DType::f32, 1, config_.vocabulary);
}

// Reads, checks and uploads the head in parts, as it is large.
const Linear& OutputHead::head() {
  if (head_.out_features() > 0) return head_;
  refuse_headless(checkpoint_, config_);
  if (config_.head_bias) {
    const StoredTensor& tensor = checkpoint_.tensor(config_.head + ".bias", {config_.vocabulary});
    const Matrix stored = checkpoint_.load(tensor);
    check_finite(checkpoint_, tensor, stored);
    head_.bias = place_matrix(stored, *backend_, DType::f32);
  }
  if (reader_ && !config_.tied_embeddings) {
    if (const PlaceWeight place = reader_(head_spec(config_))) {
      Weight weight = place(*backend_, dtype_);
      head_.weight = std::move(weight.dense);
      head_.packed = std::move(weight.packed);
      return head_;
    }
  }
  constexpr int64_t kPart = int64_t{32} << 20;
  const StoredTensor& tensor = checkpoint_.tensor(head_tensor(config_));
  const ConstMatrixView like = tensor.matrix();
  const auto row_bytes = like.cols * static_cast<int64_t>(size_of(like.dtype));
  const int64_t part_rows = std::max<int64_t>(1, kPart / std::max<int64_t>(row_bytes, 1));
  Matrix weight(*backend_, like.dtype, like.rows, like.cols);
  int64_t bad = 0;
  for (int64_t first = 0; first < like.rows; first += part_rows) {
    const int64_t count = std::min(part_rows, like.rows - first);
    Matrix part(backend_->staging_memory(), like.dtype, count, like.cols);
    checkpoint_.read(tensor, static_cast<size_t>(first * row_bytes), part.bytes(), part.view().data);
    bad += count_nonfinite(part);
    if (config_.unit_head) scale_rows_to_one(part);
    backend_->upload(weight.view().row_range(first, count), part.view().data);
  }
  refuse_nonfinite(checkpoint_, tensor, bad);
  head_.weight = std::move(weight);
  return head_;
}

const std::vector<Affine>& OutputHead::unembed_projections() {
  if (!unembed_projections_.empty()) return unembed_projections_;
  const TensorReader tensors(checkpoint_, host_memory());
  for (const PartSpec& spec : altup_projections(config_, config_.architecture->altup.unembed_projections))
    unembed_projections_.push_back(place_part(tensors.read_part(spec), *backend_));
  return unembed_projections_;
}

const Affine& OutputHead::norm() {
  if (!norm_.weight.empty()) return norm_;
  PartSpec spec = norm_spec(config_, module_path(config_, config_.architecture->final_norm), 1, config_.hidden);
  spec.scale = config_.logit_scale;
  return norm_ = place_part(TensorReader(checkpoint_, host_memory()).read_part(spec), *backend_);
}

Matrix OutputHead::take_weight() {
  head();
  Matrix weight = std::exchange(head_.weight, Matrix());
  if (weight.dtype() == dtype_) return weight;
  Matrix converted(*backend_, dtype_, weight.rows(), weight.cols());
  backend_->run(ops::Convert{.x = weight, .y = converted});
  return converted;
}

}  // namespace gptq
