#include "run/bit_probes.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "quant/rules.h"
#include "run/work.h"

namespace gptq {
namespace {

// Rows of logits in memory at once.
constexpr int64_t kLogitRows = 256;

Matrix copy_of(ConstMatrixView from, Backend& backend) {
  Matrix copy(backend, from.dtype, from.rows, from.cols);
  backend.run(ops::Convert{.x = from, .y = copy});
  return copy;
}

constexpr StateUse kPasses{.reads_residual = true, .reads_input = false, .writes_residual = true};
constexpr StateUse kOnlyLooks{.reads_residual = true, .reads_input = false, .writes_residual = false};

double pass_work(const std::vector<std::vector<LinearSpec>>& steps, int64_t tokens) {
  double work = forward_work(steps, tokens);
  for (const auto& step : steps) work += hessian_work(step, tokens);
  return work;
}

// Solving, and the first block of the step's probes.
double step_work(const std::vector<std::vector<LinearSpec>>& steps, const std::vector<LinearSpec>& linears,
                 const std::vector<int>& widths, int64_t probe_tokens) {
  double work = static_cast<double>(probed_widths(widths)) * forward_work(steps, probe_tokens);
  for (const LinearSpec& linear : linears) work += static_cast<double>(widths.size()) * solve_work(linear);
  return work;
}

double head_work(const ModelConfig& config, int64_t tokens) {
  return static_cast<double>(config.hidden * config.vocabulary) * static_cast<double>(tokens);
}

}  // namespace

int64_t probed_widths(const std::vector<int>& widths) {
  const auto many = std::find(widths.begin(), widths.end(), 8);
  return std::clamp<int64_t>(many - widths.begin(), 1, 2);
}

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

std::vector<LinearSpec> free_linears(const Recipe& recipe, const std::vector<LinearSpec>& step) {
  std::vector<LinearSpec> linears;
  for (const LinearSpec& linear : step) {
    const bool has_rule = std::any_of(recipe.dynamic.begin(), recipe.dynamic.end(),
                                      [&](const ModuleRule& rule) { return matches(rule, linear.name); });
    if (!has_rule && recipe_for(recipe, linear.name)) linears.push_back(linear);
  }
  return linears;
}

BitProbes::BitProbes(Model& model, const Recipe& recipe, std::vector<int> widths, StateStore& states,
                     StateStore& probes)
    : model_(model), recipe_(recipe), widths_(std::move(widths)), states_(states), probes_(probes) {}

void BitProbes::pass_block(const StagedBlock& staged, Backend& backend, BlockObserver& observer) {
  const auto specs = step_specs(model_.config(), staged.index);
  Block block = in_stage(observer, kLoadStage, [&] { return model_.load_block(staged, backend); });
  probes_.for_each(backend, kPasses, [&](Batch& probe) {
    in_stage(observer, kProbeStage, [&] { model_.forward(block, probe); });
    observer.worked(forward_work(specs, probe.tokens()));
  });

  std::vector<std::vector<LinearSpec>> free;
  std::vector<Hessian> hessians;
  for (const auto& step : specs) {
    free.push_back(free_linears(recipe_, step));
    hessians.emplace_back(backend, free.back().empty() ? 0 : step[0].in_features);
  }
  Batch start;  // of this block's probes
  states_.for_each(backend, kPasses, [&](Batch& batch) {
    in_stage(observer, kMeasureStage, [&] {
      if (start.offsets.empty()) start = {.offsets = batch.offsets, .residual = copy_of(batch.residual, backend)};
      for (size_t s = 0; s < specs.size(); ++s) {
        model_.enter(block, static_cast<int64_t>(s), batch);
        if (free[s].empty()) continue;
        model_.visit_inputs(block, static_cast<int64_t>(s), batch, {}, false,
                            [&](ConstMatrixView x, ConstMatrixView) { hessians[s].add(x); });
      }
      model_.finish(block, batch);
    });
    observer.worked(pass_work(specs, batch.tokens()));
  });
  for (size_t s = 0; s < specs.size(); ++s) {
    if (!free[s].empty()) probe_step(block, static_cast<int64_t>(s), free[s], hessians[s], start, backend, observer);
  }
}

void BitProbes::probe_step(Block& block, int64_t step, const std::vector<LinearSpec>& linears, Hessian& hessian,
                           const Batch& start, Backend& backend, BlockObserver& observer) {
  Step result;
  std::vector<Linear*> targets;
  for (const LinearSpec& spec : linears) {
    auto& all = block.steps[step].linears;
    targets.push_back(&*std::find_if(all.begin(), all.end(), [&](const Linear& l) { return l.name == spec.name; }));
    result.linears.push_back(spec.name);
    result.unit.weights += spec.in_features * spec.out_features;
  }
  // What is compared is how losses grow as bits fall: one stream and no refinement tell that.
  Recipe recipe = *recipe_for(recipe_, linears[0].name);
  recipe.targets = Targets::weights;
  recipe.refine = "none";
  const FactoredHessian factored =
      in_stage(observer, kMeasureStage, [&] { return hessian.factor(recipe, linears[0].name); });
  for (size_t w = 0; w < widths_.size(); ++w) {
    recipe.bits = widths_[w];
    recipe.signed_scales = recipe_.signed_scales;
    const Recipe decided = resolved(recipe);
    const bool probed = static_cast<int64_t>(w) < probed_widths(widths_);
    std::vector<Matrix> originals;
    double error = 0;
    in_stage(observer, kMeasureStage, [&] {
      for (Linear* linear : targets) {
        const Quantized quantized = solve(backend, linear->weight, factored, decided);
        error += quantized.error;
        if (!probed) continue;
        Matrix rounded(backend, linear->weight.dtype(), linear->weight.rows(), linear->weight.cols());
        dequantize(backend, quantized, rounded);
        originals.push_back(std::exchange(linear->weight, std::move(rounded)));
      }
    });
    result.unit.candidates.push_back({widths_[w], error});  // until read_probes()
    if (!probed) continue;
    Batch probe{.offsets = start.offsets, .residual = copy_of(start.residual, backend)};
    in_stage(observer, kProbeStage, [&] { model_.forward(block, probe); });
    probes_.add(std::move(probe), backend);
    for (size_t i = 0; i < targets.size(); ++i) targets[i]->weight = std::move(originals[i]);
  }
  steps_.push_back(std::move(result));
  observer.worked(step_work(step_specs(model_.config(), block.index), linears, widths_, start.tokens()));
}

void BitProbes::read_probes(Backend& head, BlockObserver& observer) {
  std::vector<double> sums(static_cast<size_t>(probes_.batches()), 0.0);
  int64_t tokens = 0;
  states_.visit(0, head, kOnlyLooks, [&](Batch& batch) {
    tokens = batch.tokens();
    for (int64_t first = 0; first < tokens; first += kLogitRows) {
      const int64_t count = std::min(kLogitRows, tokens - first);
      const Matrix p = in_stage(observer, kProbeStage, [&] { return model_.logits(batch, first, count); });
      for (int64_t i = 0; i < probes_.batches(); ++i) {
        probes_.visit(i, head, kOnlyLooks, [&](Batch& probe) {
          in_stage(observer, kProbeStage, [&] {
            const Matrix q = model_.logits(probe, first, count);
            Matrix divergence(head, DType::f32, count, 1), same_top(head, DType::f32, count, 1);
            head.run(ops::CompareLogits{.p = p, .q = q, .divergence = divergence, .same_top = same_top});
            const std::vector<float> values = to_host<float>(head, divergence);
            sums[static_cast<size_t>(i)] = std::accumulate(values.begin(), values.end(), sums[static_cast<size_t>(i)]);
          });
        });
        observer.worked(head_work(model_.config(), count));
      }
    }
  });
  const auto probed = static_cast<size_t>(probed_widths(widths_));
  for (size_t i = 0; i < steps_.size(); ++i) {
    double error = 0, divergence = 0;  // of the last probe
    for (size_t w = 0; w < widths_.size(); ++w) {
      double& loss = steps_[i].unit.candidates[w].loss;
      const double own_error = std::exchange(loss, 0.0);
      if (w < probed) {
        error = own_error;
        loss = divergence = std::max(sums[i * probed + w], 0.0) / static_cast<double>(tokens);
      } else if (error > 0) {
        loss = divergence * own_error / error;
      }
    }
  }
}

}  // namespace gptq
