// The Hessian of the linears of one step: H = sum x x' over the calibration inputs, its order, damping and factor. With
// a second stream of inputs, those of the unquantized model, also their difference's product with x.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "recipe/recipe.h"

namespace gptq {

// A factored Hessian, ready for solve(). Its scale is that of the plain sum over tokens.
struct FactoredHessian {
  Matrix factor;               // F [n, n] lower triangular, Hd[order, order] = F' F
  Matrix importance;           // [1, n] f32: diagonal of the damped Hessian, natural order
  std::vector<int32_t> order;  // order[i]: the column that is solved i-th
  std::vector<int32_t> dead;   // columns that no token activated
  double damp_percent = 0;     // that the factorization took in the end
  int64_t tokens = 0;
  int64_t routed = -1;  // of an expert: the tokens that its router gave it
  Matrix damped;        // Hd [n, n] whole, natural order: for recipes that refine, else empty
  Matrix cross;         // dC' = sum x (x_original - x)' [n, n], natural order: for corrected targets, else empty
};

class Hessian {
 public:
  // with_cross: add(x, original) will be called, not add(x).
  Hessian(Backend& backend, int64_t width, bool with_cross = false);

  // x [tokens, width]. Rows with NaN or infinity are dropped and counted.
  void add(ConstMatrixView x);
  // The same, with the input that the unquantized model has in x's place.
  void add(ConstMatrixView x, ConstMatrixView original);

  // Adds the sums and counts of another part of the calibration, which may lie on another device. Both have a cross
  // product, or neither.
  void merge(const Hessian& other);

  // Damps, orders and factors. Where the factorization fails, the damping rises tenfold, at most kDampingSteps times.
  // Throws InputError when nothing was added or nothing helps (the sentence says `name`). The sum is gone afterwards,
  // unless factor() is to be called again.
  struct Wanted {
    bool damped = true;  // FactoredHessian::damped
    bool again = false;
  };
  FactoredHessian factor(const ResolvedRecipe& recipe, const std::string& name, Wanted wanted);
  FactoredHessian factor(const ResolvedRecipe& recipe,
                         const std::string& name);  // once, for a recipe that refines or not

  // Whether linears of both recipes can be solved with one factorization.
  static bool shares_factor(const ResolvedRecipe& a, const ResolvedRecipe& b);

  void clear();  // as if nothing had been added
  int64_t tokens() const { return tokens_; }
  int64_t dropped();  // rows dropped so far

  static constexpr int kDampingSteps = 4;

 private:
  Backend& backend_;
  Matrix sum_;      // [width, width] f32, lower triangle
  Matrix cross_;    // [width, width] f32, or empty
  Matrix dropped_;  // [1, 1] i32
  int64_t tokens_ = 0;
  std::vector<int32_t> dead_;
};

// The order in which columns are solved: stable, by falling diagonal (all columns, or inside groups and groups by their
// maximum).
std::vector<int32_t> column_order(const std::vector<float>& diagonal, Order order, int64_t group_size);

}  // namespace gptq
