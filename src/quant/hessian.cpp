#include "quant/hessian.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "base/error.h"
#include "recipe/recipe.h"

namespace gptq {

std::vector<int32_t> column_order(const std::vector<float>& diagonal, Order order, int64_t group_size) {
  std::vector<int32_t> columns(diagonal.size());
  std::iota(columns.begin(), columns.end(), 0);
  const auto falls = [&](int32_t a, int32_t b) { return diagonal[a] > diagonal[b]; };
  if (order == Order::diagonal) std::stable_sort(columns.begin(), columns.end(), falls);
  if (order == Order::group_aware) {
    const int64_t groups = static_cast<int64_t>(columns.size()) / group_size;
    for (int64_t g = 0; g < groups; ++g) {
      std::stable_sort(columns.begin() + g * group_size, columns.begin() + (g + 1) * group_size, falls);
    }
    std::vector<int32_t> by_maximum(groups), sorted;  // a sorted group starts with its maximum
    std::iota(by_maximum.begin(), by_maximum.end(), 0);
    std::stable_sort(by_maximum.begin(), by_maximum.end(),
                     [&](int32_t a, int32_t b) { return falls(columns[a * group_size], columns[b * group_size]); });
    for (const int32_t g : by_maximum) {
      sorted.insert(sorted.end(), columns.begin() + g * group_size, columns.begin() + (g + 1) * group_size);
    }
    columns = std::move(sorted);
  }
  return columns;
}

Hessian::Hessian(Backend& backend, int64_t width, bool with_cross)
    : backend_(backend), sum_(zeros(backend, DType::f32, width, width)), dropped_(zeros(backend, DType::i32, 1, 1)) {
  if (with_cross) cross_ = zeros(backend, DType::f32, width, width);
}

void Hessian::add(ConstMatrixView x) {
  backend_.run(ops::AddGram{.x = x, .h = sum_, .dropped = dropped_});
  tokens_ += x.rows;
}

void Hessian::add(ConstMatrixView x, ConstMatrixView original) {
  add(x);
  backend_.run(ops::AddCrossGram{.x = x, .original = original, .c = cross_});
}

void Hessian::merge(const Hessian& other) {
  const auto add = [&](const Matrix& from, Matrix& to) {
    if (&other.backend_ == &backend_) return backend_.run(ops::Add{.x = from, .factor = 1, .y = to});
    const std::vector<float> values = to_host<float>(other.backend_, from);
    const Matrix here = to_device(backend_, DType::f32, from.rows(), from.cols(), values.data());
    backend_.run(ops::Add{.x = here, .factor = 1, .y = to});
  };
  add(other.sum_, sum_);
  if (!cross_.empty()) add(other.cross_, cross_);
  const int32_t dropped_rows =
      to_host<int32_t>(backend_, dropped_)[0] + to_host<int32_t>(other.backend_, other.dropped_)[0];
  backend_.upload(dropped_.view(), &dropped_rows);
  tokens_ += other.tokens_;
}

void Hessian::clear() {
  backend_.run(ops::Clear{.y = sum_});
  backend_.run(ops::Clear{.y = dropped_});
  if (!cross_.empty()) backend_.run(ops::Clear{.y = cross_});
  tokens_ = 0;
}

int64_t Hessian::dropped() { return to_host<int32_t>(backend_, dropped_)[0]; }

bool Hessian::shares_factor(const ResolvedRecipe& a, const ResolvedRecipe& b) {
  return a.order == b.order && (a.order != Order::group_aware || a.group_size == b.group_size);
}

FactoredHessian Hessian::factor(const ResolvedRecipe& recipe, const std::string& name) {
  return factor(recipe, name, {.damped = !refine_stages(recipe.refine).empty()});
}

FactoredHessian Hessian::factor(const ResolvedRecipe& recipe, const std::string& name, Wanted wanted) {
  const int64_t n = sum_.rows();
  FactoredHessian result;
  result.tokens = tokens_ - dropped();
  if (result.tokens <= 0)
    throw InputError(cat(name, ": none of the ", tokens_, " calibration tokens gave a finite input"));

  // The diagonal as a strided view with one element per row.
  const auto diagonal_of = [n](Matrix& matrix) {
    MatrixView view = matrix.view();
    view.cols = 1;
    view.stride = n + 1;
    return view;
  };
  std::vector<float> diagonal = to_host<float>(backend_, diagonal_of(sum_));
  // The paper sets a dead column's diagonal to 1 in H = (2 / tokens) sum x x'; here H is the plain sum.
  const float dead_value = static_cast<float>(result.tokens) / 2;
  for (int64_t k = 0; k < n; ++k) {
    if (diagonal[k] != 0) continue;
    diagonal[k] = dead_value;
    dead_.push_back(static_cast<int32_t>(k));
  }
  if (!dead_.empty()) backend_.upload(diagonal_of(sum_), diagonal.data());
  result.dead = dead_;

  const double mean = std::accumulate(diagonal.begin(), diagonal.end(), 0.0) / static_cast<double>(n);
  result.order = column_order(diagonal, recipe.order, recipe.group_size == -1 ? n : *recipe.group_size);
  result.factor = Matrix(backend_, DType::f32, n, n);
  result.damp_percent = recipe.damp_percent;
  for (int attempt = 0;; ++attempt) {
    const float damp = static_cast<float>(result.damp_percent * mean);
    backend_.run(ops::PermuteSymmetric{.h = sum_, .order = result.order, .damp = damp, .y = result.factor});
    if (backend_.run(ops::Factor{.h = result.factor})) break;
    if (attempt == kDampingSteps) {
      throw InputError(
          cat(name, ": its Hessian cannot be factored even with damping ", result.damp_percent,
              " of the mean diagonal; look for broken calibration text or weights, or raise `damp_percent`"),
          {.option = "damp_percent", .file = {}, .tensor = name});
    }
    result.damp_percent *= 10;
  }
  const float damp = static_cast<float>(result.damp_percent * mean);
  for (float& value : diagonal) value += damp;
  result.importance = to_device(backend_, DType::f32, 1, n, diagonal.data());
  const auto handed_out = [&](Matrix& matrix) {
    if (!wanted.again || matrix.empty()) return std::move(matrix);
    return copy_of(backend_, matrix);
  };
  result.cross = handed_out(cross_);
  if (wanted.damped) {
    result.damped = handed_out(sum_);
    backend_.upload(diagonal_of(result.damped), diagonal.data());
    backend_.run(ops::Mirror{.h = result.damped});
  }
  if (!wanted.again) sum_ = Matrix();
  return result;
}

}  // namespace gptq
