#include "run/step_solver.h"

#include <algorithm>

namespace gptq {

StepSolver::StepSolver(BlockPass& pass, const Recipe& recipe)
    : pass_(pass), every_token_(recipe.moe_calibrate_all_experts), least_tokens_(recipe.expert_tokens) {
  for (const auto& step : pass.specs()) recipes_.push_back(recipes_for(recipe, step));
}

bool StepSolver::selects(int64_t step) const {
  return std::any_of(recipes_[step].begin(), recipes_[step].end(),
                     [](const auto& recipe) { return recipe.has_value(); });
}

Hessian StepSolver::hessian_of(int64_t step) const {
  return {pass_.backend(), selects(step) ? pass_.specs()[step][0].in_features : 0, pass_.has_originals()};
}

void StepSolver::add_inputs(int64_t step, BatchPair pair, Hessian& hessian) const {
  add(step, pair, every_token_, hessian);
}

void StepSolver::add_all_inputs(int64_t step, BatchPair pair, Hessian& hessian) const {
  add(step, pair, true, hessian);
}

void StepSolver::add(int64_t step, BatchPair pair, bool all_tokens, Hessian& hessian) const {
  if (!selects(step)) return;
  in_stage(pass_.observer(), "Hessian", [&] {
    pass_.visit_inputs(step, pair, all_tokens,
                       [&](ConstMatrixView x, ConstMatrixView y) { y.empty() ? hessian.add(x) : hessian.add(x, y); });
  });
}

bool StepSolver::saw_few(int64_t step, const Hessian& hessian) const {
  return pass_.specs()[step][0].expert >= 0 && selects(step) && !every_token_ && hessian.tokens() < least_tokens_;
}

// Linears with the same order of columns share a factorization.
void StepSolver::solve(int64_t step, Hessian& hessian, int64_t routed) const {
  BlockObserver& observer = pass_.observer();
  Backend& backend = pass_.backend();
  const std::vector<LinearSpec>& specs = pass_.specs()[step];
  const int64_t dropped = hessian.dropped();
  if (!pass_.is_loaded(step)) pass_.load(step);
  const StepRecipes& recipes = recipes_[step];
  std::vector<bool> done(recipes.size());
  for (size_t first = 0; first < recipes.size(); ++first) {
    if (!recipes[first] || done[first]) continue;
    std::vector<size_t> alike;
    bool others = false, refines = false;
    for (size_t i = first; i < recipes.size(); ++i) {
      if (!recipes[i] || done[i]) continue;
      if (!Hessian::shares_factor(*recipes[first], *recipes[i])) {
        others = true;
        continue;
      }
      alike.push_back(i);
      refines = refines || recipes[i]->refine != "none";
    }
    FactoredHessian factored = in_stage(observer, "factorization", [&] {
      return hessian.factor(*recipes[first], specs[first].name, {.damped = refines, .again = others});
    });
    if (specs[0].expert >= 0) factored.routed = routed;
    for (const size_t i : alike) {
      done[i] = true;
      Linear& linear = pass_.linears(step)[i];
      const Quantized quantized =
          in_stage(observer, "columns", [&] { return gptq::solve(backend, linear.weight, factored, *recipes[i]); });
      observer.solved(specs[i], quantized, &factored, backend);
      in_stage(observer, "columns", [&] { dequantize(backend, quantized, linear.weight); });
    }
  }
  observer.solved_step(specs, dropped);
}

void StepSolver::round(int64_t step) const {
  for (size_t i = 0; i < recipes_[step].size(); ++i) {
    if (!recipes_[step][i]) continue;
    const Linear& linear = pass_.linears(step)[i];
    const Quantized quantized = in_stage(pass_.observer(), "columns", [&] {
      return round_to_nearest(pass_.backend(), linear.weight, *recipes_[step][i]);
    });
    pass_.observer().solved(pass_.specs()[step][i], quantized, nullptr, pass_.backend());
  }
}

}  // namespace gptq
