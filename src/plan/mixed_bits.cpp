#include "plan/mixed_bits.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "format/loaders.h"
#include "recipe/rules.h"

namespace gptq {
namespace {

// Calibration tokens for the Hessians of the measurement; tokens of a probe: at most this many, and a sixteenth of the
// calibration.
constexpr int64_t kMeasuringTokens = 32768, kProbeTokens = 2048, kProbesShare = 16;

std::string listed(const std::vector<int>& widths) {
  std::string text;
  for (size_t i = 0; i < widths.size(); ++i)
    text += cat(i == 0 ? "" : i + 1 == widths.size() ? " and " : ", ", widths[i]);
  return text;
}

// Why a width cannot be used; empty if it can.
std::string refusal(const Job& job, int bits, const StepSpecs& steps) {
  const Recipe recipe = at_width(job.recipe, bits);
  const Format& format = format_of(recipe);
  std::vector<StoredLinear> linears;
  try {
    for (const auto& step : steps) {
      for (const LinearSpec& linear : step) {
        const std::optional<ResolvedRecipe> own = recipe_for(recipe, linear.name);
        linears.push_back({linear, {}});
        if (!own) continue;
        format.check(*own);
        check_shape(linear, *own);
        linears.back().config = stored_as(format, *own);
      }
    }
    if (!job.loader.empty()) refuse_for_loader(job.loader, format.loaders(linears));
  } catch (const InputError& error) {
    return error.what();
  }
  return {};
}

}  // namespace

std::vector<LinearSpec> free_linears(const Recipe& recipe, const std::vector<LinearSpec>& step) {
  std::vector<LinearSpec> linears;
  for (const LinearSpec& linear : step) {
    const bool has_rule = std::any_of(recipe.dynamic.begin(), recipe.dynamic.end(),
                                      [&](const ModuleRule& rule) { return matches(rule, linear.name); });
    if (!has_rule && recipe_for(recipe, linear.name)) linears.push_back(linear);
  }
  return linears;
}

double free_average(const Recipe& recipe, const StepSpecs& steps) {
  double allowed = 0, free = 0;
  for (const auto& step : steps) {
    const std::vector<LinearSpec> free_here = free_linears(recipe, step);
    for (const LinearSpec& linear : step) {
      const std::optional<ResolvedRecipe> own = recipe_for(recipe, linear.name);
      if (!own) continue;
      const auto weights = static_cast<double>(linear.in_features * linear.out_features);
      const bool is_free = std::any_of(free_here.begin(), free_here.end(),
                                       [&](const LinearSpec& other) { return other.name == linear.name; });
      allowed += weights * (is_free ? recipe.average_bits : recipe.average_bits - own->bits);
      if (is_free) free += weights;
    }
  }
  if (free == 0)
    throw option_error("average_bits", ": the recipe's rules name all linears, and none is left to choose bits for");
  return allowed / free;
}

std::vector<int> candidate_widths(const Job& job, const StepSpecs& steps) {
  const double average = free_average(job.recipe, steps);
  std::vector<int> widths;
  std::string why_not;
  for (const int bits : {2, 3, 4, 8}) {
    const std::string reason = refusal(job, bits, steps);
    if (reason.empty()) {
      widths.push_back(bits);
    } else {
      why_not += cat("; ", bits, " bits: ", reason);
    }
  }
  if (widths.size() < 2) {
    throw option_error("average_bits", " ", job.recipe.average_bits, ": there are no two widths to choose from",
                       why_not);
  }
  if (average < widths.front() || average > widths.back()) {
    const bool has_rules = average != job.recipe.average_bits;
    throw option_error("average_bits", " ", job.recipe.average_bits,
                       has_rules ? cat(" leaves ", average, " to the modules without rules") : "",
                       ": it must lie between the widths ", listed(widths), why_not);
  }
  const auto above = std::lower_bound(widths.begin() + 1, widths.end(), average);  // or equal to it
  return {above - 1, std::min(above + 2, widths.end())};
}

std::vector<StoredLinear> mixture(const Job& job, const std::vector<int>& widths, const ModelConfig& config) {
  std::vector<StoredLinear> linears;
  size_t turn = 0;
  for (const auto& step : all_steps(config)) {
    const Recipe recipe = at_width(job.recipe, widths[turn++ % widths.size()]);
    for (const LinearSpec& linear : step) {
      linears.push_back({linear, {}});
      if (const std::optional<ResolvedRecipe> own = recipe_for(recipe, linear.name))
        linears.back().config = stored_as(format_of(recipe), *own);
    }
  }
  return linears;
}

Recipe at_width(Recipe recipe, int bits) {
  recipe.average_bits = 0;
  recipe.bits = bits;
  return recipe;
}

Job at_width(const Job& job, int bits) {
  Job result = job;
  result.recipe = at_width(job.recipe, bits);
  return result;
}

double share_of_least(const std::vector<int>& widths, double free_average) {
  const double least = widths[0], next = widths[1];
  return std::clamp((next - free_average) / (next - least), 0.0, 1.0);
}

std::vector<std::vector<TokenSequence>> measuring_batches(const std::vector<TokenSequence>& sequences) {
  const int64_t tokens = count_tokens(sequences);
  // Takes sequences at equal distances over the whole text.
  const auto stride = static_cast<size_t>(std::max<int64_t>(1, tokens / kMeasuringTokens));
  std::vector<TokenSequence> chosen;
  for (size_t i = 0; i < sequences.size(); i += stride) chosen.push_back(sequences[i]);
  std::stable_sort(chosen.begin(), chosen.end(),
                   [](const TokenSequence& a, const TokenSequence& b) { return a.size() > b.size(); });
  return make_batches(chosen, 0, std::min(kProbeTokens, tokens / kProbesShare));
}

Recipe with_choice(const Recipe& recipe, const std::vector<ProbedStep>& steps, const std::vector<int>& chosen) {
  std::map<int, int64_t> weights_of;
  std::map<int, std::vector<std::string>> linears_of;
  for (size_t i = 0; i < steps.size(); ++i) {
    weights_of[chosen[i]] += steps[i].unit.weights;
    auto& names = linears_of[chosen[i]];
    names.insert(names.end(), steps[i].linears.begin(), steps[i].linears.end());
  }
  const auto fewer = [](const auto& a, const auto& b) { return a.second < b.second; };
  Recipe result = recipe;
  result.bits = std::max_element(weights_of.begin(), weights_of.end(), fewer)->first;
  for (const auto& [width, names] : linears_of) {
    if (width == result.bits) continue;
    for (const std::string& pattern : patterns_of(names)) result.dynamic.push_back({.pattern = pattern, .bits = width});
  }
  return result;
}

}  // namespace gptq
