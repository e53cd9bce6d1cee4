#include "run/block.h"

#include <utility>

#include "run/sweeps.h"

namespace gptq {

void quantize_block(Model& model, const Recipe& recipe, StagedBlock staged, const Team& team, Streams streams,
                    const Streams* watched, BlockObserver& observer) {
  BlockPass pass(model, std::move(staged), team.lead(), streams, observer, watched);
  const StepSolver solver(pass, recipe);
  if (recipe.method == Method::rtn) return sweep_rounding(pass, solver);
  const bool advances = !pass.is_last() || recipe.lm_head;
  recipe.true_sequential ? sweep_sequentially(pass, solver, advances) : sweep_at_once(pass, solver, advances);
}

void quantize_head(Model& model, const ResolvedRecipe& recipe, Backend& backend, Streams streams,
                   BlockObserver& observer) {
  const LinearSpec spec = head_spec(model.config());
  observer.begin_step({spec});
  const auto load = [&] { return in_stage(observer, kLoadStage, [&] { return model.output_head().take_weight(); }); };
  if (recipe.method == Method::rtn) {
    const Matrix weight = load();
    const Quantized quantized =
        in_stage(observer, "columns", [&] { return round_to_nearest(backend, weight, recipe); });
    return observer.solved(spec, quantized, nullptr, backend);
  }
  Hessian hessian(backend, spec.in_features, streams.originals != nullptr);
  streams.for_each(backend, kOnlyLooks, [&](BatchPair pair) {
    const Matrix x = in_stage(observer, "forward", [&] { return model.output_head().input(pair.batch); });
    const Matrix y = pair.original == nullptr ? Matrix() : in_stage(observer, "original forward", [&] {
      return model.output_head().input(*pair.original);
    });
    in_stage(observer, "Hessian", [&] { pair.original == nullptr ? hessian.add(x) : hessian.add(x, y); });
    observer.swept({spec}, pair.batch.tokens());
  });
  const int64_t dropped = hessian.dropped();
  const FactoredHessian factored =
      in_stage(observer, "factorization", [&] { return hessian.factor(recipe, spec.name); });
  const Matrix weight = load();
  const Quantized quantized = in_stage(observer, "columns", [&] { return solve(backend, weight, factored, recipe); });
  observer.solved(spec, quantized, &factored, backend);
  observer.solved_step({spec}, dropped);
}

}  // namespace gptq
