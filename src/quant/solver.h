// From a weight matrix to codes: the fast form of GPTQ (paper.h is the plain one) and rounding to nearest.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "quant/hessian.h"
#include "recipe/recipe.h"

namespace gptq {

// One quantized linear, columns in natural order: weight[r, k] = scales[r, g_idx[k]] * (codes[r, k] - zeros[r,
// g_idx[k]]).
struct Quantized {
  Matrix codes;                // [rows, cols] u8
  Matrix scales, zeros;        // [rows, groups] f32 (fp16 values), u8
  std::vector<int32_t> g_idx;  // [cols]
  int bits = 0;
  int64_t group_size = 0;
  double loss = 0;   // tr((T - Q) Hd (T - Q)') / tokens; rounding: mean square of W - Q
  double error = 0;  // the same, relative to tr(W Hd W') / tokens; rounding: to W's mean square
  std::vector<std::pair<std::string, double>> stages;  // the loss after each stage
  double target_shift = 0;                             // tr((T - W) Hd (T - W)'), relative as `error`

  Grid grid() const { return {scales.view(), zeros.view(), bits}; }
};

// GPTQ (arXiv 2210.17323) in its form without an inverse (LDLQ, arXiv 2307.13304): with Hd[order, order] = R R', R
// upper triangular, the target of column k is w_k + sum_{j<k} (w_j - q_j) R_jk / R_kk, which gives the paper's codes. W
// is read only. weight [rows, cols] float on the backend. The codes approximate the recipe's targets T, in the place of
// w above; the stages of recipe.refine follow.
Quantized solve(Backend& backend, ConstMatrixView weight, const FactoredHessian& hessian, const ResolvedRecipe& recipe);

// Every weight to the nearest point of its group's grid; recipe.scale_search diag means minmax here, as there is no
// Hessian.
Quantized round_to_nearest(Backend& backend, ConstMatrixView weight, const ResolvedRecipe& recipe);

// weight = the quantized values, in weight's dtype.
void dequantize(Backend& backend, const Quantized& quantized, MatrixView weight);

}  // namespace gptq
