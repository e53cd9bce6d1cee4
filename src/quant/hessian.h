// The Hessian of a step's linears: H = sum x x' over the calibration inputs, with order, damping and factor. With a
// second stream, the inputs of the unquantized model, also the cross product of their difference with x.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "recipe/recipe.h"

namespace gptq {

// A factored Hessian, ready for solve(). It is the plain sum over tokens, not divided by their number.
struct FactoredHessian {
  Matrix factor;               // F [n, n] lower triangular, Hd[order, order] = F' F
  Matrix importance;           // [1, n] f32: diagonal of the damped Hessian, natural order
  std::vector<int32_t> order;  // order[i]: the column solved i-th
  std::vector<int32_t> dead;   // columns that no token activated
  double damp_percent = 0;     // with which the factorization succeeded
  int64_t tokens = 0;
  int64_t routed = -1;  // tokens routed to the expert; -1: not an expert
  Matrix damped;        // Hd [n, n], both triangles, natural order; only for recipes that refine
  Matrix cross;         // dC' = sum x (x_original - x)' [n, n], natural order; only for corrected targets
};

class Hessian {
 public:
  // with_cross: add(x, original) will be called, not add(x).
  Hessian(Backend& backend, int64_t width, bool with_cross = false);

  // x [tokens, width]. Rows with NaN or infinity are dropped and counted.
  void add(ConstMatrixView x);
  // Also adds the cross product with the unquantized model's input.
  void add(ConstMatrixView x, ConstMatrixView original);

  // Adds the sums and counts of another part of the calibration, possibly on another device. Both must have a cross
  // product or neither.
  void merge(const Hessian& other);

  // Damps, orders and factors. If the factorization fails, increases the damping tenfold, at most kDampingSteps times.
  // Throws InputError, with `name`, if nothing was added or the factorization still fails. Frees the sum unless
  // factor() is called again.
  struct Wanted {
    bool damped = true;  // FactoredHessian::damped
    bool again = false;
  };
  FactoredHessian factor(const ResolvedRecipe& recipe, const std::string& name, Wanted wanted);
  FactoredHessian factor(const ResolvedRecipe& recipe,
                         const std::string& name);  // once, with all parts that the recipe needs

  // Whether linears of both recipes can be solved with one factorization.
  static bool shares_factor(const ResolvedRecipe& a, const ResolvedRecipe& b);

  void clear();  // resets the sums and counts
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

// The order of solving columns: by descending diagonal, stable (over all columns; or within groups, and groups by their
// maximum).
std::vector<int32_t> column_order(const std::vector<float>& diagonal, Order order, int64_t group_size);

}  // namespace gptq
