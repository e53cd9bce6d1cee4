#include "quant/solver.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <span>

#include "quant/refine.h"
#include "quant/targets.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

// Columns per call of the column loop; feedback between blocks is a matrix product.
constexpr int64_t kBlock = kMostColumns;

// The parameters of a recipe's scale_search (mse: the paper's code, |error|^2.4 over 80 candidates
// down to 0.2).
GridSearch grid_search(const Recipe& recipe) {
  GridSearch search{
      .bits = recipe.bits, .symmetric = recipe.sym, .signed_scales = recipe.signed_scales.value_or(false)};
  if (recipe.scale_search == ScaleSearch::diag) {
    search.candidates = 40;
    search.shrink_step = 0.0175F;
    search.search_zeros = !recipe.sym;
  } else if (recipe.scale_search == ScaleSearch::mse) {
    search.candidates = 80;
    search.shrink_step = 0.01F;
    search.norm = 2.4F;
  }
  return search;
}

Quantized make_quantized(Backend& backend, ConstMatrixView weight, const Recipe& recipe) {
  Quantized result;
  result.bits = recipe.bits;
  result.group_size = recipe.group_size == -1 ? weight.cols : *recipe.group_size;
  const int64_t groups = weight.cols / result.group_size;
  result.scales = Matrix(backend, DType::f32, weight.rows, groups);
  result.zeros = Matrix(backend, DType::u8, weight.rows, groups);
  result.codes = Matrix(backend, DType::u8, weight.rows, weight.cols);
  result.g_idx.resize(static_cast<size_t>(weight.cols));
  return result;
}

double sum_of(Backend& backend, const Matrix& column) {
  const std::vector<float> values = to_host<float>(backend, column);
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// The weight in f32 with these columns set to zero.
Matrix live_weight(Backend& backend, ConstMatrixView weight, const std::vector<int32_t>& dead) {
  Matrix result(backend, DType::f32, weight.rows, weight.cols);
  backend.run(ops::Convert{.x = weight, .y = result});
  const std::vector<float> nothing(static_cast<size_t>(weight.rows));
  for (const int32_t column : dead) backend.upload(result.view().col_range(column, 1), nothing.data());
  return result;
}

// The column loop over T [rows, n], whose columns are in the order of solving; groups[i] is the grid column of the
// i-th. Writes codes [rows, n], and the grid's columns if groups are determined during the loop. Returns tr((T - Q) Hd
// (T - Q)').
double solve_columns(Backend& backend, ConstMatrixView T, const FactoredHessian& hessian, const Recipe& recipe,
                     std::span<const int32_t> groups, MatrixView codes, Quantized& result) {
  const int64_t rows = T.rows, n = T.cols, group_size = result.group_size;
  const ConstMatrixView F = hessian.factor;
  const GridSearch search = grid_search(recipe);
  Matrix importance(backend, DType::f32, 1, n);
  backend.run(ops::GatherColumns{.x = hessian.importance, .ids = hessian.order, .y = importance});
  Matrix loss = zeros(backend, DType::f32, rows, 1);
  Matrix E(backend, DType::f32, rows, n);  // t - q of solved columns
  for (int64_t first = 0; first < n; first += kBlock) {
    const int64_t count = std::min(kBlock, n - first);
    // Groups that start inside this block may extend beyond it; they need the feedback of earlier blocks for all their
    // columns.
    const int64_t group_start = (first + group_size - 1) / group_size * group_size;
    int64_t reach = first + count;
    if (!recipe.static_groups) {
      for (int64_t start = group_start; start < first + count; start += group_size)
        reach = std::max(reach, start + group_size);
    }
    Matrix feedback(backend, DType::f32, rows, reach - first);  // sum_{j < first} E_j R_jk
    backend.run(
        ops::Linear{.x = E.view().col_range(0, first), .w = F.block(first, reach - first, 0, first), .y = feedback});
    if (!recipe.static_groups && group_start < first + count) {
      // The groups' weights with the corrections of earlier blocks.
      Matrix corrected = copy_of(backend, feedback);
      backend.run(ops::SolveTriangle{
          .factor = F.block(first, reach - first, first, reach - first), .transposed = true, .x = corrected});
      backend.run(ops::Add{.x = T.col_range(first, reach - first), .factor = 1, .y = corrected});
      for (int64_t start = group_start; start < first + count; start += group_size) {
        const int32_t group = groups[start];
        backend.run(ops::FindGrid{.w = corrected.view().col_range(start - first, group_size),
                                  .importance = importance.view().col_range(start, group_size),
                                  .group_size = group_size,
                                  .search = search,
                                  .scales = result.scales.view().col_range(group, 1),
                                  .zeros = result.zeros.view().col_range(group, 1)});
      }
    }
    backend.run(ops::QuantizeColumns{.w = T.col_range(first, count),
                                     .feedback = feedback.view().col_range(0, count),
                                     .factor = F.block(first, count, first, count),
                                     .groups = groups.subspan(first, count),
                                     .grid = result.grid(),
                                     .codes = codes.col_range(first, count),
                                     .errors = E.view().col_range(first, count),
                                     .loss = loss});
  }
  return sum_of(backend, loss);
}

// Dead columns beside live ones in a group, in ascending order. A group without live columns is left out: it has no
// other weights that its grid could serve.
std::vector<int32_t> dead_among_live(const std::vector<int32_t>& dead, const Quantized& result) {
  std::vector<int64_t> live(static_cast<size_t>(result.scales.cols()), result.group_size);
  for (const int32_t column : dead) --live[result.g_idx[column]];
  std::vector<int32_t> found;
  std::copy_if(dead.begin(), dead.end(), std::back_inserter(found),
               [&](int32_t column) { return live[result.g_idx[column]] > 0; });
  return found;
}

// Gives these columns the codes nearest to their weights on the grid that their groups have.
void round_dead_columns(Backend& backend, ConstMatrixView weight, const std::vector<int32_t>& dead, Quantized& result) {
  const int64_t rows = weight.rows, n = weight.cols, count = static_cast<int64_t>(dead.size());
  std::vector<int32_t> groups, ids(static_cast<size_t>(n));
  for (const int32_t column : dead) groups.push_back(result.g_idx[column]);
  std::iota(ids.begin(), ids.end(), 0);
  Matrix W(backend, DType::f32, rows, count), both(backend, DType::u8, rows, n + count);  // all codes, then theirs
  {
    Matrix wide(backend, DType::f32, rows, n);
    backend.run(ops::Convert{.x = weight, .y = wide});
    backend.run(ops::GatherColumns{.x = wide, .ids = dead, .y = W});
  }
  backend.run(ops::GatherColumns{.x = result.codes, .ids = ids, .y = both.view().col_range(0, n)});
  for (int64_t i = 0; i < count; ++i) ids[dead[i]] = static_cast<int32_t>(n + i);
  backend.run(
      ops::RoundColumns{.w = W, .groups = groups, .grid = result.grid(), .codes = both.view().col_range(n, count)});
  backend.run(ops::GatherColumns{.x = both, .ids = ids, .y = result.codes});
}

}  // namespace

Quantized solve(Backend& backend, ConstMatrixView weight, const FactoredHessian& hessian,
                const ResolvedRecipe& recipe) {
  const int64_t rows = weight.rows, n = weight.cols;
  Quantized result = make_quantized(backend, weight, recipe);
  const std::vector<int32_t>& order = hessian.order;
  const auto tokens = static_cast<double>(hessian.tokens);

  // groups[i]: the grid column of the column solved i-th. Only desc_act has groups in the order of solving.
  std::vector<int32_t> groups(order.size()), inverse(order.size());
  for (int64_t i = 0; i < n; ++i) {
    inverse[order[i]] = static_cast<int32_t>(i);
    groups[i] = static_cast<int32_t>((recipe.desc_act ? i : order[i]) / result.group_size);
    result.g_idx[order[i]] = groups[i];
  }
  const auto sorted = [&](ConstMatrixView X) {  // [rows, n] in the order of solving
    Matrix Y(backend, DType::f32, rows, n);
    backend.run(ops::GatherColumns{.x = X, .ids = order, .y = Y});
    return Y;
  };
  const auto energy = [&](ConstMatrixView Y) {  // tr(Y Hd Y') / tokens of a sorted Y
    Matrix norms = zeros(backend, DType::f32, rows, 1);
    backend.run(ops::AddProductNorms{.w = Y, .factor = hessian.factor, .norms = norms});
    return sum_of(backend, norms) / tokens;
  };
  const auto note = [&](const char* stage, double loss) {
    result.loss = loss;
    result.stages.emplace_back(stage, loss);
  };

  const std::vector<int32_t> dead =
      recipe.round_dead_columns ? dead_among_live(hessian.dead, result) : std::vector<int32_t>();
  Matrix targets = live_weight(backend, weight, recipe.round_dead_columns ? dead : hessian.dead);  // natural order
  double power = 0;
  if (recipe.targets != Targets::weights) {
    power = energy(sorted(targets));
    Matrix shift = std::move(targets);
    targets = correct_targets(backend, shift, hessian, recipe);
    backend.run(ops::Add{.x = targets, .factor = -1, .y = shift});
    result.target_shift = power > 0 ? energy(sorted(shift)) / power : 0;
  }
  if (recipe.static_groups) {
    backend.run(ops::FindGrid{.w = targets,
                              .importance = hessian.importance,
                              .group_size = result.group_size,
                              .search = grid_search(recipe),
                              .scales = result.scales,
                              .zeros = result.zeros});
  }
  const std::vector<RefineStage> refinement = refine_stages(recipe.refine);
  {
    const Matrix T = sorted(targets);
    if (refinement.empty()) targets = Matrix();
    if (recipe.targets == Targets::weights) power = energy(T);
    Matrix codes(backend, DType::u8, rows, n);
    if (recipe.static_groups) {
      Matrix E(backend, DType::f32, rows, n);
      backend.run(ops::RoundColumns{.w = T, .groups = groups, .grid = result.grid(), .codes = codes});
      backend.run(ops::Dequantize{.codes = codes, .groups = groups, .grid = result.grid(), .w = E});
      backend.run(ops::Add{.x = T, .factor = -1, .y = E});
      note("rounded", energy(E));
    }
    note("columns", solve_columns(backend, T, hessian, recipe, groups, codes, result) / tokens);
    backend.run(ops::GatherColumns{.x = codes, .ids = inverse, .y = result.codes});
  }
  for (const RefineStage& stage : refinement) {
    if (stage.refit) refit_scales(backend, targets, hessian.damped, *recipe.signed_scales, result);
    for (int sweep = 0; sweep < stage.sweeps; ++sweep) sweep_codes(backend, targets, hessian.damped, result);
    Matrix E(backend, DType::f32, rows, n);
    dequantize(backend, result, E);
    backend.run(ops::Add{.x = targets, .factor = -1, .y = E});
    note(stage.refit ? "refit" : "sweep", energy(sorted(E)));
  }
  if (!dead.empty()) round_dead_columns(backend, weight, dead, result);
  result.error = power > 0 ? result.loss / power : 0;
  return result;
}

Quantized round_to_nearest(Backend& backend, ConstMatrixView weight, const ResolvedRecipe& recipe) {
  Quantized result = make_quantized(backend, weight, recipe);
  for (int64_t k = 0; k < weight.cols; ++k) result.g_idx[k] = static_cast<int32_t>(k / result.group_size);
  Recipe without_hessian = recipe;
  if (recipe.scale_search == ScaleSearch::diag) without_hessian.scale_search = ScaleSearch::minmax;
  Matrix W(backend, DType::f32, weight.rows, weight.cols);
  backend.run(ops::Convert{.x = weight, .y = W});
  backend.run(ops::FindGrid{.w = W,
                            .group_size = result.group_size,
                            .search = grid_search(without_hessian),
                            .scales = result.scales,
                            .zeros = result.zeros});
  backend.run(ops::RoundColumns{.w = W, .groups = result.g_idx, .grid = result.grid(), .codes = result.codes});

  Matrix loss = zeros(backend, DType::f32, weight.rows, 1), power = zeros(backend, DType::f32, weight.rows, 1);
  backend.run(ops::AddRowNorms{.x = W, .norms = power});
  constexpr int64_t kRows = 256;  // rows whose differences are in memory at a time
  for (int64_t first = 0; first < weight.rows; first += kRows) {
    const int64_t count = std::min(kRows, weight.rows - first);
    const Grid grid = {result.scales.view().row_range(first, count), result.zeros.view().row_range(first, count),
                       result.bits};
    Matrix difference(backend, DType::f32, count, weight.cols);
    backend.run(ops::Dequantize{
        .codes = result.codes.view().row_range(first, count), .groups = result.g_idx, .grid = grid, .w = difference});
    backend.run(ops::Add{.x = W.view().row_range(first, count), .factor = -1, .y = difference});
    backend.run(ops::AddRowNorms{.x = difference, .norms = loss.view().row_range(first, count)});
  }
  const double count = static_cast<double>(weight.size());
  result.loss = sum_of(backend, loss) / count;
  const double total = sum_of(backend, power) / count;
  result.error = total > 0 ? result.loss / total : 0;
  return result;
}

}  // namespace gptq
