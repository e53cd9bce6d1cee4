#include "model/batch.h"

#include <algorithm>

namespace gptq {
namespace {

StepKind kind_of(const StepSpecs& steps, int64_t step) { return steps[static_cast<size_t>(step)][0].step; }

bool follows_mixer(const StepSpecs& steps, int64_t step) { return step > 0 && ends_mixer(kind_of(steps, step - 1)); }

// 0 without a mixer, the number of steps without an MLP.
int64_t first_of_mlp(const StepSpecs& steps) {
  auto step = static_cast<int64_t>(steps.size());
  while (step > 0 && !follows_mixer(steps, step)) --step;
  return step;
}

}  // namespace

bool can_rebuild_inputs(const ModelConfig& config) {
  return std::none_of(config.kinds.begin(), config.kinds.end(), [](const BlockKind& kind) { return kind.has_experts; });
}

int64_t widest_input(const ModelConfig& config) {
  int64_t widest = 0;
  for (int64_t block = 0; block < config.blocks; ++block) {
    const BlockKind& kind = config.kinds[static_cast<size_t>(block)];
    if (block > 0 && have_same_steps(kind, config.kinds[static_cast<size_t>(block) - 1])) continue;
    int64_t of_mixers = 0;
    for (const auto& step : step_specs(config, block)) {
      widest = std::max(widest, step[0].in_features);
      if (ends_mixer(step[0].step)) of_mixers += step[0].in_features;
    }
    widest = std::max(widest, of_mixers);
    if (kind.has_experts) widest = std::max(widest, (config.expert_row.beside_norm.empty() ? 2 : 4) * config.hidden);
  }
  if (config.latent.kv_rank == 0) return widest;
  const int64_t queries = config.latent.q_rank > 0 ? config.latent.q_rank : config.heads * config.head_dim;
  return std::max(widest, queries + config.latent.kv_rank + config.latent.rope_dim);
}

StateUse state_use(const ModelConfig& config, const StepSpecs& steps, int64_t step, bool keeps_inputs) {
  const bool ends = step == static_cast<int64_t>(steps.size());
  // Attention keeps keys and values in the state, or takes them from there.
  const bool keeps_keys =
      std::any_of(config.kinds.begin(), config.kinds.end(), [](const BlockKind& kind) { return kind.keys_at >= 0; });
  if (!keeps_inputs) {
    const bool writes = ends || keeps_keys || (follows_mixer(steps, step) && !config.parallel);
    return {.reads_residual = true, .reads_input = false, .writes_residual = writes};
  }
  if (step == 0) return {.reads_residual = true, .reads_input = false, .writes_residual = false};
  if (ends || follows_mixer(steps, step) || keeps_keys) return {};
  return {.reads_residual = false, .reads_input = true, .writes_residual = false};
}

int64_t first_needed(const ModelConfig& config, const StepSpecs& steps, int64_t step, bool keeps_inputs) {
  if (step == 0) return 0;
  if (!keeps_inputs) {
    const int64_t mlp = first_of_mlp(steps);
    return config.parallel || step <= mlp ? 0 : mlp;
  }
  const StepKind before = kind_of(steps, step - 1);
  const bool is_pair = before == StepKind::shared_out || before == StepKind::expert_out;
  const bool is_latent = before == StepKind::latent_key_value && kind_of(steps, step - 2) == StepKind::latent_query;
  const bool are_mixers = before == StepKind::mixer_out && kind_of(steps, step - 2) == StepKind::attention_out;
  return is_pair || is_latent || are_mixers ? step - 2 : step - 1;
}

}  // namespace gptq
