#include "run/probe.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "data/batches.h"
#include "model/work.h"
#include "plan/mixed_bits.h"
#include "recipe/rules.h"
#include "run/comparison.h"

namespace gptq {
namespace {

constexpr StateUse kPasses{.reads_residual = true, .reads_input = false, .writes_residual = true};

double pass_work(const StepSpecs& steps, int64_t tokens) {
  double work = forward_work(steps, tokens);
  for (const auto& step : steps) work += hessian_work(step, tokens);
  return work;
}

// Solving, and the passes of the step's probes through the rest of their own block.
double step_work(const StepSpecs& steps, const std::vector<LinearSpec>& linears, const std::vector<int>& widths,
                 int64_t probe_tokens) {
  double work = static_cast<double>(probed_widths(widths)) * forward_work(steps, probe_tokens);
  for (const LinearSpec& linear : linears) work += static_cast<double>(widths.size()) * solve_work(linear);
  return work;
}

double head_work(const ModelConfig& config, int64_t tokens) {
  return static_cast<double>(config.hidden * config.vocabulary) * static_cast<double>(tokens);
}

}  // namespace

double probing_work(const ModelConfig& config, const Recipe& recipe, const std::vector<int>& widths, int64_t tokens,
                    int64_t probe_tokens) {
  double work = 0;
  int64_t probes = 0;
  for (int64_t block = 0; block < config.blocks; ++block) {
    const auto steps = step_specs(config, block);
    work += pass_work(steps, tokens) + static_cast<double>(probes) * forward_work(steps, probe_tokens);
    for (const auto& step : steps) {
      const std::vector<LinearSpec> linears = free_linears(recipe, step);
      if (linears.empty()) continue;
      work += step_work(steps, linears, widths, probe_tokens);
      probes += probed_widths(widths);
    }
  }
  return work + static_cast<double>(probes) * head_work(config, probe_tokens);
}

BitMeasurement::BitMeasurement(Session& session, const Recipe& recipe, std::vector<int> widths,
                               std::vector<std::vector<TokenSequence>> batches, RunObserver& observer, ThreadPool* pool)
    : ObservedVisitor(session, observer),
      model_(session.model()),
      recipe_(recipe),
      widths_(std::move(widths)),
      batches_(std::move(batches)) {
  int64_t tokens = 0, probed_steps = 0;
  for (const auto& batch : batches_) tokens += count_tokens(batch);
  for (const auto& step : all_steps(model_.config())) probed_steps += free_linears(recipe_, step).empty() ? 0 : 1;
  states_ = session_.make_store(tokens);
  probes_ = session_.make_store(count_tokens(batches_[0]) * probed_widths(widths_) * probed_steps);
  Backend& first = session_.first();
  const auto add_all = [&] {
    for (const auto& batch : batches_) states_->add(session_.embed(batch, pool), first);
  };
  as_unit(session_.placement().embedding(), -1, first, [&] { in_stage(observer_, kEmbeddingStage, add_all); });
}

void BitMeasurement::add_probes(int64_t count) {
  for (int64_t i = 0; i < count; ++i) probes_->add(session_.embed(batches_[0]), session_.first());
}

void BitMeasurement::walk(const std::vector<Stop>& stops, WalkOptions options) {
  Walk(session_, std::move(options)).over(stops, *this);
}

void BitMeasurement::pass(StagedBlock staged, const Team& team) {
  Backend& backend = team.lead();
  const auto specs = step_specs(model_.config(), staged.index);
  Block block = in_stage(observer_, kLoadStage, [&] { return model_.weights().load_block(staged, backend); });
  probes_->for_each(backend, kPasses, [&](Batch& probe) {
    in_stage(observer_, kProbeStage, [&] { model_.forward(block, probe); });
    observer_.worked(forward_work(specs, probe.tokens()));
  });

  StepSpecs free;
  std::vector<Hessian> hessians;
  for (const auto& step : specs) {
    free.push_back(free_linears(recipe_, step));
    hessians.emplace_back(backend, free.back().empty() ? 0 : step[0].in_features);
  }
  Batch start;  // start states of this block's probes
  states_->for_each(backend, kPasses, [&](Batch& batch) {
    in_stage(observer_, kMeasureStage, [&] {
      if (start.offsets.empty()) start = {.offsets = batch.offsets, .residual = copy_of(backend, batch.residual)};
      for (size_t s = 0; s < specs.size(); ++s) {
        model_.enter(block, static_cast<int64_t>(s), batch);
        if (free[s].empty()) continue;
        model_.visit_inputs(block, static_cast<int64_t>(s), batch, {}, false,
                            [&](ConstMatrixView x, ConstMatrixView) { hessians[s].add(x); });
      }
      model_.finish(block, batch);
    });
    observer_.worked(pass_work(specs, batch.tokens()));
  });
  for (size_t s = 0; s < specs.size(); ++s) {
    if (!free[s].empty()) probe_step(block, static_cast<int64_t>(s), free[s], hessians[s], start, backend);
  }
}

void BitMeasurement::probe_step(Block& block, int64_t step, const std::vector<LinearSpec>& linears, Hessian& hessian,
                                const Batch& start, Backend& backend) {
  ProbedStep result;
  std::vector<Linear*> targets;
  for (const LinearSpec& spec : linears) {
    auto& all = block.steps[step].linears;
    targets.push_back(&*std::find_if(all.begin(), all.end(), [&](const Linear& l) { return l.name == spec.name; }));
    result.linears.push_back(spec.name);
    result.unit.weights += spec.in_features * spec.out_features;
  }
  // One stream without refinement suffices to compare how losses grow with fewer bits.
  Recipe recipe = *recipe_for(recipe_, linears[0].name);
  recipe.targets = Targets::weights;
  recipe.refine = "none";
  const FactoredHessian factored =
      in_stage(observer_, kMeasureStage, [&] { return hessian.factor(resolve(recipe), linears[0].name); });
  for (size_t w = 0; w < widths_.size(); ++w) {
    recipe.bits = widths_[w];
    recipe.signed_scales = recipe_.signed_scales;
    const ResolvedRecipe decided = resolve(recipe);
    const bool probed = static_cast<int64_t>(w) < probed_widths(widths_);
    std::vector<Matrix> originals;
    double error = 0;
    in_stage(observer_, kMeasureStage, [&] {
      for (Linear* linear : targets) {
        const Quantized quantized = solve(backend, linear->weight, factored, decided);
        error += quantized.error;
        if (!probed) continue;
        Matrix rounded(backend, linear->weight.dtype(), linear->weight.rows(), linear->weight.cols());
        dequantize(backend, quantized, rounded);
        originals.push_back(std::exchange(linear->weight, std::move(rounded)));
      }
    });
    result.unit.candidates.push_back({widths_[w], error});  // before read()
    if (!probed) continue;
    Batch probe{.offsets = start.offsets, .residual = copy_of(backend, start.residual)};
    in_stage(observer_, kProbeStage, [&] { model_.forward(block, probe); });
    probes_->add(std::move(probe), backend);
    for (size_t i = 0; i < targets.size(); ++i) targets[i]->weight = std::move(originals[i]);
  }
  steps_.push_back(std::move(result));
  observer_.worked(step_work(step_specs(model_.config(), block.index), linears, widths_, start.tokens()));
}

std::vector<ProbedStep> BitMeasurement::read() {
  session_.open_head();
  as_unit(session_.placement().head(), model_.config().blocks - 1, session_.head(),
          [&] { estimate_losses(divergences(session_.head())); });
  return std::move(steps_);
}

std::vector<double> BitMeasurement::divergences(Backend& head) {
  std::vector<double> sums(static_cast<size_t>(probes_->batches()), 0.0);
  const auto add_rows = [&](const Batch& batch, int64_t first, int64_t count) {
    const Matrix p = in_stage(observer_, kProbeStage, [&] { return model_.output_head().logits(batch, first, count); });
    for (int64_t i = 0; i < probes_->batches(); ++i) {
      probes_->visit(i, head, kOnlyLooks, [&](Batch& probe) {
        in_stage(observer_, kProbeStage, [&] {
          const Matrix q = model_.output_head().logits(probe, first, count);
          Matrix divergence(head, DType::f32, count, 1), same_top(head, DType::f32, count, 1);
          head.run(ops::CompareLogits{.p = p, .q = q, .divergence = divergence, .same_top = same_top});
          const std::vector<float> values = to_host<float>(head, divergence);
          sums[static_cast<size_t>(i)] = std::accumulate(values.begin(), values.end(), sums[static_cast<size_t>(i)]);
        });
      });
      observer_.worked(head_work(model_.config(), count));
    }
  };
  states_->visit(0, head, kOnlyLooks, [&](Batch& batch) {
    for (int64_t first = 0; first < batch.tokens(); first += kLogitRows)
      add_rows(batch, first, std::min(kLogitRows, batch.tokens() - first));
  });
  return sums;
}

// The cost of a width without a probe is that of the last probe, scaled by the step's own errors.
void BitMeasurement::estimate_losses(const std::vector<double>& divergences) {
  const auto tokens = static_cast<double>(count_tokens(batches_[0]));
  const auto probed = static_cast<size_t>(probed_widths(widths_));
  for (size_t i = 0; i < steps_.size(); ++i) {
    double error = 0, divergence = 0;  // those of the last probe
    for (size_t w = 0; w < widths_.size(); ++w) {
      double& loss = steps_[i].unit.candidates[w].loss;
      const double own_error = std::exchange(loss, 0.0);
      if (w < probed) {
        error = own_error;
        loss = divergence = std::max(divergences[i * probed + w], 0.0) / tokens;
      } else if (error > 0) {
        loss = divergence * own_error / error;
      }
    }
  }
}

}  // namespace gptq
