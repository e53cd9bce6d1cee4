#include "plan/layout.h"

#include <algorithm>
#include <set>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "format/format.h"
#include "plan/mixed_bits.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

// "model.layers.3.self_attn.q_proj" -> "self_attn.q_proj"
std::string name_in_block(const ModelConfig& config, const std::string& name) {
  const size_t index = module_path(config, config.architecture->blocks).size() + 1;
  return name.substr(name.find('.', index) + 1);
}

// Decides how each linear is stored.
void choose_linears(const Job& job, const Facts& facts, Layout& layout) {
  std::set<std::string> wanted, known;
  for (const auto& names : job.recipe.modules_in_block_to_quantize) wanted.insert(names.begin(), names.end());
  const auto choose = [&](const LinearSpec& linear, const std::optional<ResolvedRecipe>& recipe) {
    layout.linears.push_back({linear, {}});
    if (!recipe) return;
    facts.format->check(*recipe);
    check_shape(linear, *recipe);
    layout.linears.back().config = stored_as(*facts.format, *recipe);
    layout.quantized.emplace(linear.name, QuantizedLinear{linear, *recipe});
    layout.quantized_weights += linear.in_features * linear.out_features;
    layout.replaced[linear.tensor].push_back(linear.name);
    if (linear.bias && linear.matrix_index >= 0) layout.split_biases[linear.bias_tensor].push_back(linear.name);
  };
  const StepSpecs steps = all_steps(facts.config);
  for (const auto& step : steps) {
    for (const LinearSpec& linear : step) {
      known.insert(name_in_block(facts.config, linear.name));
      choose(linear, recipe_for(job.recipe, linear.name));
    }
  }
  for (const StoredLinear& linear : layout.linears) {
    if (linear.config || layout.replaced.count(linear.spec.tensor) == 0) continue;
    throw InputError(cat(linear.spec.name, " stays as it is by the rules, but lies in '", linear.spec.tensor,
                         "' with others that are quantized: quantize all of them, or none"));
  }
  layout.written_rules = with_fused_names(job.recipe, steps);
  const LinearSpec head = head_spec(facts.config);
  if (job.recipe.lm_head && facts.config.tied_embeddings) {
    throw option_error("lm_head", ": the output head of ", job.model,
                       " is its embedding (tie_word_embeddings), in which loaders look tokens up unquantized; drop "
                       "the flag");
  }
  choose(head, recipe_for_head(job.recipe, head.name));
  for (const std::string& name : wanted) {
    if (known.count(name) != 0) continue;
    std::string names;
    for (const std::string& other : known) names += (names.empty() ? "" : ", ") + other;
    throw option_error("modules_in_block_to_quantize", " ", name, ": a block of this model has ", names);
  }
  for (const ModuleRule& rule : job.recipe.dynamic) {
    const bool used = std::any_of(layout.linears.begin(), layout.linears.end(),
                                  [&](const StoredLinear& linear) { return matches(rule, linear.spec.name); });
    if (used) continue;
    layout.notices.push_back({Level::warning, cat("the rule '", rule.pattern, "' matches no linear of this model")});
  }
  if (layout.quantized.empty())
    throw InputError("the recipe quantizes nothing: its rules skip every linear of the model");
}

void plan_output(const Job& job, const Facts& facts, Layout& layout) {
  layout.output = facts.format->layout({*facts.checkpoint, layout.quantized, layout.replaced, layout.split_biases},
                                       job.max_shard_bytes);
  layout.output_bytes = layout.output.output_bytes;
  layout.bits_per_weight = 8.0 * static_cast<double>(layout.output.quantized_bytes) /
                           static_cast<double>(std::max<int64_t>(layout.quantized_weights, 1));
}

// Whether a block has linears that are never quantized and that other programs see as linears like all others. Routers
// are not among them: programs that load experts know routers.
bool keeps_linears(const ModelConfig& config, int64_t block) {
  constexpr Part kLinears[] = {Part::head_gates,     Part::mixer_gates,   Part::selection,   Part::step_projection,
                               Part::per_block_gate, Part::per_block_out, Part::laurel_left, Part::laurel_right};
  const std::vector<PartSpec> parts = part_specs(config, block);
  return std::any_of(parts.begin(), parts.end(), [&](const PartSpec& spec) {
    return std::find(std::begin(kLinears), std::end(kLinears), spec.part) != std::end(kLinears);
  });
}

// modules_in_block_to_quantize, which Optimum reads instead of rules: the names within a block of all quantized
// linears, by step. Empty if all linears are quantized, or some only in some of the blocks that have them.
std::vector<std::vector<std::string>> names_to_quantize(const ModelConfig& config, const Layout& layout) {
  std::vector<std::vector<std::string>> steps;
  std::set<std::string> quantized, kept;
  bool keeps_some = false;
  for (int64_t block = 0; block < config.blocks; ++block) {
    keeps_some = keeps_some || keeps_linears(config, block);
    for (const auto& step : step_specs(config, block)) {
      std::vector<std::string> names;
      for (const LinearSpec& linear : step) {
        const std::string name = name_in_block(config, linear.name);
        if (!layout.is_quantized(linear))
          kept.insert(name);
        else if (quantized.insert(name).second)
          names.push_back(name);
      }
      if (!names.empty()) steps.push_back(std::move(names));
    }
  }
  const bool differ = std::any_of(kept.begin(), kept.end(), [&](const auto& name) { return quantized.contains(name); });
  if (differ || (kept.empty() && !keeps_some)) return {};
  return steps;
}

}  // namespace

Layout lay_out(const Job& job, const Facts& facts) {
  Layout layout;
  choose_linears(job, facts, layout);
  plan_output(job, facts, layout);
  return layout;
}

Layout planned_layout(const Job& job, const Facts& facts) {
  const bool chooses = !facts.widths.empty();
  Layout layout = lay_out(chooses ? at_width(job, facts.widths[1]) : job, facts);
  if (!job.loader.empty()) {
    const std::vector<StoredLinear> mixed =
        chooses ? mixture(job, facts.widths, facts.config) : std::vector<StoredLinear>();
    refuse_for_loader(job.loader, loader_verdicts(*facts.format, chooses ? mixed : layout.linears, facts.config));
  }
  if (!chooses) return layout;
  double free_weights = 0;
  for (const auto& step : all_steps(facts.config)) {
    for (const LinearSpec& linear : free_linears(job.recipe, step))
      free_weights += static_cast<double>(linear.in_features * linear.out_features);
  }
  const double saved_bits =
      share_of_least(facts.widths, facts.free_average) * (facts.widths[1] - facts.widths[0]) * free_weights;
  layout.bits_per_weight -= saved_bits / static_cast<double>(layout.quantized_weights);
  layout.output_bytes -= static_cast<int64_t>(saved_bits / 8);
  return layout;
}

Setup set_up(Job& job) {
  Setup setup{.facts = find_facts(job), .layout = {}};
  setup.layout = planned_layout(job, setup.facts);
  return setup;
}

OutputRecord output_record(const Job& job, const Facts& facts, const Layout& layout) {
  OutputRecord record{.recipe = job.recipe};
  record.has_own_head = !facts.config.untied_by_head.empty();
  record.recipe.dynamic = layout.written_rules;
  for (const StoredLinear& linear : layout.linears) {
    const auto found = layout.quantized.find(linear.spec.name);
    if (found != layout.quantized.end())
      record.quantized.push_back(found->second);
    else
      record.unquantized.push_back(linear.spec.name);
  }
  auto& names = record.recipe.modules_in_block_to_quantize;
  if (names.empty()) names = names_to_quantize(facts.config, layout);
  return record;
}

}  // namespace gptq
