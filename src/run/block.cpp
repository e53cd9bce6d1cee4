#include "run/block.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "recipe/rules.h"

namespace gptq {
namespace {

using StepRecipes = std::vector<std::optional<ResolvedRecipe>>;  // one per linear; empty for one that is not quantized

std::vector<StepRecipes> recipes_of(const Recipe& recipe, const StepSpecs& steps) {
  std::vector<StepRecipes> recipes;
  for (const auto& step : steps) recipes.push_back(recipes_for(recipe, step));
  return recipes;
}

Step copy_of(Backend& backend, const Step& from) {
  Step copy;
  for (const Linear& linear : from.linears)
    copy.linears.push_back({linear.name, copy_of(backend, linear.weight), copy_of(backend, linear.bias)});
  return copy;
}

// Calls visit(batch, original) for all batches; `original` is nullptr with one stream.
template <typename Visit>
void for_each_pair(StateStore& states, StateStore* originals, Backend& backend, StateUse use, const Visit& visit) {
  if (originals == nullptr) return states.for_each(backend, use, [&](Batch& batch) { visit(batch, nullptr); });
  for (int64_t i = 0; i < states.batches(); ++i) {
    states.visit(i, backend, use, [&](Batch& batch) {
      originals->visit(i, backend, use, [&](Batch& original) { visit(batch, &original); });
    });
  }
}

class BlockRun {
 public:
  BlockRun(Model& model, const Recipe& recipe, StagedBlock staged, const Team& team, Streams streams,
           BlockObserver& observer)
      : model_(model),
        staged_(std::move(staged)),
        backend_(team.lead()),
        states_(streams.states),
        originals_(streams.originals),
        observer_(observer),
        specs_(step_specs(model.config(), staged_.index)),
        recipes_(recipes_of(recipe, specs_)),
        head_follows_(recipe.lm_head),
        every_token_(recipe.moe_calibrate_all_experts),
        least_tokens_(recipe.expert_tokens),
        block_(in_stage(observer, kLoadStage, [&] { return model.weights().begin_block(staged_, backend_); })) {
    if (originals_ != nullptr)
      original_ = in_stage(observer, kLoadStage, [&] { return model.weights().begin_block(staged_, backend_); });
  }

  void sweep_sequential();
  void sweep_at_once();
  void round();

 private:
  int64_t steps() const { return static_cast<int64_t>(specs_.size()); }
  bool ends_here() const { return block_.index + 1 == model_.config().blocks && !head_follows_; }
  bool selected(int64_t step) const {
    return std::any_of(recipes_[step].begin(), recipes_[step].end(),
                       [](const auto& recipe) { return recipe.has_value(); });
  }
  void load(int64_t step) {
    in_stage(observer_, kLoadStage, [&] {
      model_.weights().load_step(staged_, block_, step);
      if (originals_ != nullptr) original_.steps[step] = copy_of(backend_, block_.steps[step]);
    });
  }
  template <typename Visit>
  void for_each_batch(StateUse use, const Visit& visit) {
    for_each_pair(states_, originals_, backend_, use, visit);
  }
  // Advances a batch to `step` and adds its inputs to the Hessian.
  void add_input(int64_t step, const Block& block, Batch& batch, Batch* original, Hessian& hessian);
  void add_entered(int64_t step, const Block& block, const Batch& batch, const Batch* original, bool all_tokens,
                   Hessian& hessian);
  bool saw_few(int64_t step, const Hessian& hessian) const;
  Hessian hessian_of(int64_t step) const {
    return {backend_, selected(step) ? specs_[step][0].in_features : 0, originals_ != nullptr};
  }
  void drop_step(int64_t step) {
    Weights::drop_step(block_, step);
    if (originals_ != nullptr) Weights::drop_step(original_, step);
  }
  // routed: tokens that the router assigned to the expert.
  void solve_step(int64_t step, Hessian& hessian, int64_t routed);

  Model& model_;
  StagedBlock staged_;
  Backend& backend_;
  StateStore& states_;
  StateStore* originals_;
  BlockObserver& observer_;
  const StepSpecs specs_;
  const std::vector<StepRecipes> recipes_;
  const bool head_follows_;  // needs the states after the last block
  const bool every_token_;   // calibrates every expert on all tokens
  const int64_t least_tokens_;
  Block block_;     // solved steps have dequantized weights
  Block original_;  // original weights, for a second stream
};

// The input of the second stream comes from the original block, which shares the weights of steps that are not
// quantized yet.
void BlockRun::add_input(int64_t step, const Block& block, Batch& batch, Batch* original, Hessian& hessian) {
  in_stage(observer_, "forward", [&] { model_.enter(block, step, batch); });
  if (original != nullptr) in_stage(observer_, "original forward", [&] { model_.enter(original_, step, *original); });
  add_entered(step, block, batch, original, every_token_, hessian);
}

void BlockRun::add_entered(int64_t step, const Block& block, const Batch& batch, const Batch* original, bool all_tokens,
                           Hessian& hessian) {
  if (!selected(step)) return;
  in_stage(observer_, "Hessian", [&] {
    model_.visit_inputs(block, step, batch, {&original_, original}, all_tokens,
                        [&](ConstMatrixView x, ConstMatrixView y) { y.empty() ? hessian.add(x) : hessian.add(x, y); });
  });
}

// An expert with too few tokens is calibrated on all tokens.
bool BlockRun::saw_few(int64_t step, const Hessian& hessian) const {
  return specs_[step][0].expert >= 0 && selected(step) && !every_token_ && hessian.tokens() < least_tokens_;
}

// Linears with the same order of columns share a factorization.
void BlockRun::solve_step(int64_t step, Hessian& hessian, int64_t routed) {
  const int64_t dropped = hessian.dropped();
  if (block_.steps[step].linears[0].weight.empty()) load(step);
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
    FactoredHessian factored = in_stage(observer_, "factorization", [&] {
      return hessian.factor(*recipes[first], specs_[step][first].name, {.damped = refines, .again = others});
    });
    if (specs_[step][0].expert >= 0) factored.routed = routed;
    for (const size_t i : alike) {
      done[i] = true;
      Linear& linear = block_.steps[step].linears[i];
      const Quantized quantized =
          in_stage(observer_, "columns", [&] { return solve(backend_, linear.weight, factored, *recipes[i]); });
      observer_.solved(specs_[step][i], quantized, &factored, backend_);
      in_stage(observer_, "columns", [&] { dequantize(backend_, quantized, linear.weight); });
    }
  }
  observer_.solved_step(specs_[step], dropped);
}

// One pass: a step's Hessian sees the outputs of the quantized steps before it. A step's weights are loaded from its
// solution until its outputs are computed, or until they are no longer needed to rebuild inputs.
void BlockRun::sweep_sequential() {
  const bool keeps_inputs = states_.keeps_inputs();
  const auto sweep = [&](int64_t step, const auto& visit) {
    for_each_batch(state_use(model_.config(), specs_, step, keeps_inputs), [&](Batch& batch, Batch* original) {
      if (!keeps_inputs) {
        in_stage(observer_, "forward", [&] { model_.rebuild_input(block_, step, batch); });
        if (original != nullptr)
          in_stage(observer_, "original forward", [&] { model_.rebuild_input(original_, step, *original); });
      }
      visit(batch, original);
    });
  };
  for (int64_t s = 0; s < steps(); ++s) {
    observer_.begin_step(specs_[s]);
    std::optional<Hessian> hessian(hessian_of(s));
    sweep(s, [&](Batch& batch, Batch* original) {
      add_input(s, block_, batch, original, *hessian);
      observer_.swept(specs_[s], batch.tokens());
    });
    const int64_t routed = hessian->tokens();
    if (saw_few(s, *hessian)) {
      hessian.reset();
      hessian.emplace(hessian_of(s));
      const StateUse looks{.reads_residual = false, .reads_input = true, .writes_residual = false};
      for_each_batch(looks,
                     [&](Batch& batch, Batch* original) { add_entered(s, block_, batch, original, true, *hessian); });
    }
    const int64_t needed = first_needed(model_.config(), specs_, s + 1, keeps_inputs);
    for (int64_t done = 0; done < needed; ++done) drop_step(done);
    selected(s) ? solve_step(s, *hessian, routed) : load(s);
  }
  if (ends_here()) return;
  sweep(steps(), [&](Batch& batch, Batch* original) {
    in_stage(observer_, "forward", [&] { model_.finish(block_, batch); });
    if (original != nullptr) in_stage(observer_, "original forward", [&] { model_.finish(original_, *original); });
    observer_.swept({}, 0);
  });
}

// Without true_sequential: one pass through the unquantized block for all Hessians, then one through the quantized
// block.
void BlockRun::sweep_at_once() {
  for (int64_t s = 0; s < steps(); ++s) load(s);
  observer_.begin_step(specs_[0]);
  std::vector<Hessian> hessians;
  for (int64_t s = 0; s < steps(); ++s) hessians.push_back(hessian_of(s));
  const StateUse only_looks{.reads_residual = true, .reads_input = false, .writes_residual = false};
  const auto pass = [&](bool all_tokens, const std::function<bool(int64_t)>& wanted) {
    for_each_batch(only_looks, [&](Batch& batch, Batch* original) {
      Batch copy{.offsets = batch.offsets, .residual = copy_of(backend_, batch.residual)};
      Batch original_copy;
      if (original != nullptr)
        original_copy = {.offsets = original->offsets, .residual = copy_of(backend_, original->residual)};
      for (int64_t s = 0; s < steps(); ++s) {
        Batch* const original_input = original != nullptr ? &original_copy : nullptr;
        in_stage(observer_, "forward", [&] { model_.enter(block_, s, copy); });
        if (original_input != nullptr)
          in_stage(observer_, "original forward", [&] { model_.enter(original_, s, *original_input); });
        if (wanted(s)) add_entered(s, block_, copy, original_input, all_tokens, hessians[s]);
        if (!all_tokens || every_token_) observer_.swept(specs_[s], batch.tokens());
      }
    });
  };
  pass(every_token_, [](int64_t) { return true; });
  std::vector<int64_t> routed;
  std::vector<bool> few;
  for (int64_t s = 0; s < steps(); ++s) {
    routed.push_back(hessians[s].tokens());
    few.push_back(saw_few(s, hessians[s]));
    if (!few.back()) continue;
    hessians[s].clear();
  }
  if (std::count(few.begin(), few.end(), true) > 0) pass(true, [&](int64_t s) { return few[s]; });
  for (int64_t s = 0; s < steps(); ++s) {
    observer_.begin_step(specs_[s]);
    if (selected(s)) solve_step(s, hessians[s], routed[s]);
  }
  if (ends_here()) return;
  const StateUse whole{.reads_residual = true, .reads_input = false, .writes_residual = true};
  for_each_batch(whole, [&](Batch& batch, Batch* original) {
    in_stage(observer_, "forward", [&] { model_.forward(block_, batch); });
    if (original != nullptr) in_stage(observer_, "original forward", [&] { model_.forward(original_, *original); });
    observer_.swept({}, 0);
  });
}

void BlockRun::round() {
  for (int64_t s = 0; s < steps(); ++s) {
    observer_.begin_step(specs_[s]);
    load(s);
    for (size_t i = 0; i < specs_[s].size(); ++i) {
      if (!recipes_[s][i]) continue;
      Linear& linear = block_.steps[s].linears[i];
      const Quantized quantized =
          in_stage(observer_, "columns", [&] { return round_to_nearest(backend_, linear.weight, *recipes_[s][i]); });
      observer_.solved(specs_[s][i], quantized, nullptr, backend_);
    }
    Weights::drop_step(block_, s);
    observer_.solved_step(specs_[s], 0);
  }
}

}  // namespace

void quantize_block(Model& model, const Recipe& recipe, StagedBlock staged, const Team& team, Streams streams,
                    BlockObserver& observer) {
  BlockRun run(model, recipe, std::move(staged), team, streams, observer);
  if (recipe.method == Method::rtn) return run.round();
  recipe.true_sequential ? run.sweep_sequential() : run.sweep_at_once();
}

void quantize_head(Model& model, const ResolvedRecipe& recipe, Backend& backend, Streams streams,
                   BlockObserver& observer) {
  StateStore* const originals = streams.originals;
  const LinearSpec spec = head_spec(model.config());
  observer.begin_step({spec});
  const auto load = [&] { return in_stage(observer, kLoadStage, [&] { return model.output_head().take_weight(); }); };
  if (recipe.method == Method::rtn) {
    const Matrix weight = load();
    const Quantized quantized =
        in_stage(observer, "columns", [&] { return round_to_nearest(backend, weight, recipe); });
    return observer.solved(spec, quantized, nullptr, backend);
  }
  Hessian hessian(backend, spec.in_features, originals != nullptr);
  const StateUse only_looks{.reads_residual = true, .reads_input = false, .writes_residual = false};
  for_each_pair(streams.states, originals, backend, only_looks, [&](Batch& batch, Batch* original) {
    const Matrix x = in_stage(observer, "forward", [&] { return model.output_head().input(batch); });
    const Matrix y = original == nullptr
                         ? Matrix()
                         : in_stage(observer, "original forward", [&] { return model.output_head().input(*original); });
    in_stage(observer, "Hessian", [&] { original == nullptr ? hessian.add(x) : hessian.add(x, y); });
    observer.swept({spec}, batch.tokens());
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
