#include "quant/targets.h"

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace gptq {
namespace {

// Keeps the strictly upper triangle of Z [n, n].
void keep_strict_upper(Backend& backend, MatrixView Z) {
  constexpr int64_t kTile = 256;  // tiles on the diagonal, which are processed on the host
  for (int64_t first = 0; first < Z.rows; first += kTile) {
    const int64_t count = std::min(kTile, Z.rows - first);
    const MatrixView diagonal = Z.block(first, count, first, count);
    std::vector<float> values = to_host<float>(backend, diagonal);
    for (int64_t r = 0; r < count; ++r) std::fill_n(values.begin() + r * count, r + 1, 0.0F);
    backend.upload(diagonal, values.data());
    if (first > 0) backend.run(ops::Clear{.y = Z.block(first, count, 0, first)});
  }
}

// A' [n, n], computed exactly as the product of the identity with A.
Matrix transposed(Backend& backend, ConstMatrixView A) {
  Matrix identity = zeros(backend, DType::f32, A.rows, A.rows), result(backend, DType::f32, A.rows, A.rows);
  MatrixView diagonal = identity.view();
  diagonal.cols = 1;
  diagonal.stride = A.rows + 1;
  backend.upload(diagonal, std::vector<float>(static_cast<size_t>(A.rows), 1.0F).data());
  backend.run(ops::Linear{.x = identity, .w = A, .y = result});
  return result;
}

// W dC [rows, n], columns in the order of solving.
Matrix exact_product(Backend& backend, ConstMatrixView W, const FactoredHessian& hessian) {
  Matrix product(backend, DType::f32, W.rows, W.cols), sorted(backend, DType::f32, W.rows, W.cols);
  backend.run(ops::Linear{.x = W, .w = hessian.cross, .y = product});  // cross = dC'
  backend.run(ops::GatherColumns{.x = product, .ids = hessian.order, .y = sorted});
  return sorted;
}

// W striu(dC U') [rows, n], in the order of solving: the exact product restricted so that a column compensates only
// earlier ones. With F = inv(U'), Z = dC U' solves Z F = dC.
Matrix gptaq_product(Backend& backend, ConstMatrixView W, const FactoredHessian& hessian) {
  const int64_t n = W.cols;
  Matrix Z(backend, DType::f32, n, n);
  {
    Matrix rows_sorted(backend, DType::f32, n, n), sorted(backend, DType::f32, n, n);
    backend.run(ops::GatherRows{.table = hessian.cross, .ids = hessian.order, .y = rows_sorted});
    backend.run(ops::GatherColumns{.x = rows_sorted, .ids = hessian.order, .y = sorted});
    Z = transposed(backend, sorted);
  }
  backend.run(ops::SolveTriangle{.factor = hessian.factor, .transposed = false, .x = Z});
  keep_strict_upper(backend, Z);
  Matrix sorted_W(backend, DType::f32, W.rows, n), product(backend, DType::f32, W.rows, n);
  backend.run(ops::GatherColumns{.x = W, .ids = hessian.order, .y = sorted_W});
  backend.run(ops::Linear{.x = sorted_W, .w = transposed(backend, Z), .y = product});
  return product;
}

}  // namespace

bool wants_original_states(const Recipe& recipe) {
  return recipe.method == Method::gptq && recipe.targets != Targets::weights;
}

Matrix correct_targets(Backend& backend, ConstMatrixView W, const FactoredHessian& hessian,
                       const ResolvedRecipe& recipe) {
  if (hessian.cross.empty()) throw Error("corrected targets need the original model's inputs");
  std::vector<int32_t> inverse(hessian.order.size());
  for (size_t i = 0; i < inverse.size(); ++i) inverse[hessian.order[i]] = static_cast<int32_t>(i);
  const ConstMatrixView F = hessian.factor;  // Hd[order, order] = F' F

  const bool exact = recipe.targets == Targets::corrected;
  Matrix shift = exact ? exact_product(backend, W, hessian) : gptaq_product(backend, W, hessian);
  if (exact) backend.run(ops::SolveTriangle{.factor = F, .transposed = false, .x = shift});
  backend.run(ops::SolveTriangle{.factor = F, .transposed = true, .x = shift});

  Matrix natural(backend, DType::f32, W.rows, W.cols), T(backend, DType::f32, W.rows, W.cols);
  backend.run(ops::GatherColumns{.x = shift, .ids = inverse, .y = natural});
  backend.run(ops::Convert{.x = W, .y = T});
  backend.run(ops::Add{.x = natural, .factor = static_cast<float>(*recipe.alpha), .y = T});
  return T;
}

}  // namespace gptq
