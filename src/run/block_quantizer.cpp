#include "run/block_quantizer.h"

#include <algorithm>
#include <utility>

namespace gptq {
namespace {

// One stage's work, told to the observer.
template <typename Body>
auto in_stage(BlockObserver& observer, const char* stage, Body body) {
  struct Scope {
    BlockObserver& observer;
    ~Scope() { observer.end_stage(); }
  };
  observer.begin_stage(stage);
  const Scope scope{observer};
  return body();
}

class BlockRun {
 public:
  BlockRun(Model& model, const Recipe& recipe, StagedBlock staged, Backend& backend, StateStore& states,
           BlockObserver& observer)
      : model_(model),
        recipe_(recipe),
        staged_(std::move(staged)),
        backend_(backend),
        states_(states),
        observer_(observer),
        specs_(step_specs(model.config(), staged_.index)),
        block_(in_stage(observer, kLoadStage, [&] { return model.begin_block(staged_, backend); })) {}

  void sweep_sequential();
  void sweep_at_once();
  void round();

 private:
  int64_t steps() const { return static_cast<int64_t>(specs_.size()); }
  bool is_last() const { return block_.index + 1 == model_.config().blocks; }
  bool selected(int64_t step) const { return any_selected(recipe_, specs_[step]); }
  void load(int64_t step) {
    in_stage(observer_, kLoadStage, [&] { model_.load_step(staged_, block_, step); });
  }
  void solve_step(int64_t step, Hessian& hessian);

  Model& model_;
  const Recipe& recipe_;
  StagedBlock staged_;
  Backend& backend_;
  StateStore& states_;
  BlockObserver& observer_;
  const std::vector<std::vector<LinearSpec>> specs_;
  Block block_;
};

void BlockRun::solve_step(int64_t step, Hessian& hessian) {
  const int64_t dropped = hessian.dropped();
  const FactoredHessian factored =
      in_stage(observer_, "factorization", [&] { return hessian.factor(recipe_, specs_[step][0].name); });
  if (block_.steps[step].linears[0].weight.empty()) load(step);
  for (size_t i = 0; i < specs_[step].size(); ++i) {
    if (!is_selected(recipe_, specs_[step][i])) continue;
    Linear& linear = block_.steps[step].linears[i];
    const Quantized quantized =
        in_stage(observer_, "columns", [&] { return solve(backend_, linear.weight, factored, recipe_); });
    observer_.solved(specs_[step][i], quantized, &factored, backend_);
    in_stage(observer_, "columns", [&] { dequantize(backend_, quantized, linear.weight); });
  }
  observer_.solved_step(specs_[step], dropped);
}

// One pass: a step's Hessian sees the inputs that the already quantized steps before it produce. A step's weights are
// here from its solution until its outputs are known, or until they are no longer needed to rebuild inputs.
void BlockRun::sweep_sequential() {
  const bool keeps_inputs = states_.keeps_inputs();
  const auto sweep = [&](int64_t step, const auto& visit) {
    states_.for_each(backend_, state_use(step, keeps_inputs), [&](Batch& batch) {
      if (!keeps_inputs) in_stage(observer_, "forward", [&] { model_.rebuild_input(block_, step, batch); });
      visit(batch);
    });
  };
  for (int64_t s = 0; s < steps(); ++s) {
    observer_.begin_step(specs_[s]);
    Hessian hessian(backend_, selected(s) ? specs_[s][0].in_features : 0);
    sweep(s, [&](Batch& batch) {
      const ConstMatrixView x = in_stage(observer_, "forward", [&] { return model_.advance(block_, s, batch); });
      if (selected(s)) in_stage(observer_, "Hessian", [&] { hessian.add(x); });
      observer_.swept(specs_[s], batch.tokens());
    });
    const int64_t needed = keeps_inputs ? s : Model::first_rebuilt(s + 1);
    for (int64_t done = 0; done < needed; ++done) Model::drop_step(block_, done);
    selected(s) ? solve_step(s, hessian) : load(s);
  }
  if (is_last()) return;
  sweep(steps(), [&](Batch& batch) {
    in_stage(observer_, "forward", [&] { model_.finish(block_, batch); });
    observer_.swept({}, 0);
  });
}

// Without true_sequential: all Hessians from one pass through the unquantized block, then a pass through the quantized
// one.
void BlockRun::sweep_at_once() {
  for (int64_t s = 0; s < steps(); ++s) load(s);
  observer_.begin_step(specs_[0]);
  std::vector<Hessian> hessians;
  for (const auto& step : specs_) hessians.emplace_back(backend_, step[0].in_features);
  const StateUse only_looks{.reads_residual = true, .reads_input = false, .writes_residual = false};
  states_.for_each(backend_, only_looks, [&](Batch& batch) {
    Batch copy{
        batch.offsets, Matrix(backend_, batch.residual.dtype(), batch.residual.rows(), batch.residual.cols()), {}};
    backend_.convert(batch.residual, copy.residual);
    for (int64_t s = 0; s < steps(); ++s) {
      const ConstMatrixView x = in_stage(observer_, "forward", [&] { return model_.advance(block_, s, copy); });
      in_stage(observer_, "Hessian", [&] { hessians[s].add(x); });
      observer_.swept(specs_[s], batch.tokens());
    }
  });
  for (int64_t s = 0; s < steps(); ++s) {
    observer_.begin_step(specs_[s]);
    if (selected(s)) solve_step(s, hessians[s]);
  }
  if (is_last()) return;
  const StateUse whole{.reads_residual = true, .reads_input = false, .writes_residual = true};
  states_.for_each(backend_, whole, [&](Batch& batch) {
    in_stage(observer_, "forward", [&] { model_.forward(block_, batch); });
    observer_.swept({}, 0);
  });
}

void BlockRun::round() {
  for (int64_t s = 0; s < steps(); ++s) {
    observer_.begin_step(specs_[s]);
    load(s);
    for (size_t i = 0; i < specs_[s].size(); ++i) {
      if (!is_selected(recipe_, specs_[s][i])) continue;
      Linear& linear = block_.steps[s].linears[i];
      const Quantized quantized =
          in_stage(observer_, "columns", [&] { return round_to_nearest(backend_, linear.weight, recipe_); });
      observer_.solved(specs_[s][i], quantized, nullptr, backend_);
    }
    Model::drop_step(block_, s);
    observer_.solved_step(specs_[s], 0);
  }
}

}  // namespace

bool is_selected(const Recipe& recipe, const LinearSpec& linear) {
  if (recipe.modules_in_block_to_quantize.empty()) return true;
  for (const auto& names : recipe.modules_in_block_to_quantize) {
    for (const std::string& name : names) {
      if (linear.name.size() > name.size() && linear.name.ends_with("." + name)) return true;
    }
  }
  return false;
}

bool any_selected(const Recipe& recipe, const std::vector<LinearSpec>& step) {
  return std::any_of(step.begin(), step.end(), [&](const LinearSpec& linear) { return is_selected(recipe, linear); });
}

void quantize_block(Model& model, const Recipe& recipe, StagedBlock staged, Backend& backend, StateStore& states,
                    BlockObserver& observer) {
  BlockRun run(model, recipe, std::move(staged), backend, states, observer);
  if (recipe.method == Method::rtn) return run.round();
  recipe.true_sequential ? run.sweep_sequential() : run.sweep_at_once();
}

}  // namespace gptq
