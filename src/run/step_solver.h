// Quantizes the linears of a block's steps, each by its recipe: from the Hessian of the step, or by rounding.
#pragma once

#include <optional>
#include <vector>

#include "recipe/rules.h"
#include "run/block_pass.h"

namespace gptq {

class StepSolver {
 public:
  // Keeps a reference to the pass.
  StepSolver(BlockPass& pass, const Recipe& recipe);

  bool selects(int64_t step) const;  // whether a linear of the step is quantized

  // An empty Hessian for the step; of width 0 if nothing of it is quantized.
  Hessian hessian_of(int64_t step) const;
  // Adds the inputs of a step that the batches have entered; for an expert those of its tokens, or of all tokens.
  void add_inputs(int64_t step, BatchPair pair, Hessian& hessian) const;
  void add_all_inputs(int64_t step, BatchPair pair, Hessian& hessian) const;
  // Whether it is an expert with too few tokens, which is calibrated on all tokens.
  bool saw_few(int64_t step, const Hessian& hessian) const;

  // Solves the step's linears, and leaves their dequantized weights in the block. routed: tokens that the router
  // assigned to the expert.
  void solve(int64_t step, Hessian& hessian, int64_t routed) const;
  // Rounds the loaded weights to nearest; does not change them.
  void round(int64_t step) const;

 private:
  using StepRecipes = std::vector<std::optional<ResolvedRecipe>>;  // one per linear; empty if it is not quantized

  void add(int64_t step, BatchPair pair, bool all_tokens, Hessian& hessian) const;

  BlockPass& pass_;
  const bool every_token_;  // calibrates every expert on all tokens
  const int64_t least_tokens_;
  std::vector<StepRecipes> recipes_;
};

}  // namespace gptq
