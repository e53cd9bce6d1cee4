// From a weight matrix to codes: the fast form of GPTQ (paper.h is the plain one) and rounding to nearest.
#pragma once

#include "backend/backend.h"
#include "quant/hessian.h"
#include "quant/quantized.h"
#include "recipe/recipe.h"

namespace gptq {

// GPTQ (arXiv 2210.17323) in its form without an inverse (LDLQ, arXiv 2307.13304): with Hd[order, order] = R R', R
// upper triangular, the target of column k is w_k + sum_{j<k} (w_j - q_j) R_jk / R_kk, which gives the paper's codes. W
// is read only. weight [rows, cols] float on the backend. The codes approximate the recipe's targets T, in the place of
// w above; the stages of recipe.refine follow.
Quantized solve(Backend& backend, ConstMatrixView weight, const FactoredHessian& hessian, const ResolvedRecipe& recipe);

// Every weight to the nearest point of its group's grid; recipe.scale_search diag means minmax here, as there is no
// Hessian.
Quantized round_to_nearest(Backend& backend, ConstMatrixView weight, const ResolvedRecipe& recipe);

}  // namespace gptq
