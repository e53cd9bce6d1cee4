// The targets of GPTQ's codes if the inputs of a linear differ from those of the original model.
#pragma once

#include "backend/backend.h"
#include "quant/hessian.h"
#include "recipe/recipe.h"

namespace gptq {

// Whether the recipe takes a second stream of states, those of the unquantized model.
bool wants_original_states(const Recipe& recipe);

// T [rows, n] in natural order for weights W [rows, n] f32. X are the inputs in the quantized model, Xo those in the
// original one, dC = (Xo - X) X', alpha is the recipe's:
//   corrected: T = W + alpha W dC inv(Hd), which for alpha 1 minimizes |W Xo - T X|^2 + damping: the first step of
//     Qronos (arXiv 2505.11695) for all columns at once;
//   gptaq: T = W + alpha W P, P = striu(dC U') U with inv(Hd) = U' U, U upper triangular (arXiv 2504.02692),
//     always applied to the original W.
// Throws Error for a Hessian without its cross product.
Matrix correct_targets(Backend& backend, ConstMatrixView W, const FactoredHessian& hessian,
                       const ResolvedRecipe& recipe);

}  // namespace gptq
