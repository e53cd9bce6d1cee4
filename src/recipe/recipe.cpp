#include "recipe/recipe.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"

namespace gptq {

Recipe recipe_preset(const std::string& name) {
  Recipe recipe;
  if (name == "default") return recipe;
  if (name == "best") {
    recipe.targets = Targets::corrected;
    return recipe;
  }
  recipe.signed_scales = false;
  recipe.refine = "none";
  recipe.scale_search = ScaleSearch::minmax;
  recipe.static_groups = false;
  if (name == "paper") {
    recipe.order = Order::natural;
    return recipe;
  }
  if (name == "group-aware") {
    recipe.order = Order::group_aware;
    recipe.damp_percent = 0.05;
    return recipe;
  }
  throw InputError(cat("--preset ", name, ": there are default, best, paper and group-aware"));
}

void validate(const Recipe& recipe) {
  if (recipe.bits != 2 && recipe.bits != 3 && recipe.bits != 4 && recipe.bits != 8) {
    throw InputError(cat("--bits ", recipe.bits, ": the GPTQ format holds 2, 3, 4 or 8"));
  }
  if (recipe.average_bits != 0 && !(recipe.average_bits >= 2 && recipe.average_bits <= 8)) {
    throw InputError(cat("--average-bits ", recipe.average_bits, ": give a number from 2 to 8, such as 3.5"));
  }
  if (recipe.average_bits != 0 && recipe.method == Method::rtn)
    throw InputError("--average-bits measures with Hessians what fewer bits cost, and --method rtn has none: drop one");
  if (recipe.expert_tokens < 1)
    throw InputError(cat("--expert-tokens ", recipe.expert_tokens, ": give a positive number of tokens"));
  if (recipe.group_size != -1 && recipe.group_size <= 0) {
    throw InputError(cat("--group-size ", recipe.group_size,
                         ": give a positive divisor of the input sizes, or -1 for one group per row"));
  }
  if (!(recipe.damp_percent > 0 && recipe.damp_percent < 1)) {
    throw InputError(cat("--damp-percent ", recipe.damp_percent,
                         ": it is a share of the mean diagonal, more than 0 and less than 1"));
  }
  if (recipe.desc_act && recipe.static_groups) {
    throw InputError(
        "--desc-act with static groups: that is --order diagonal, the default; drop --desc-act, or add "
        "--no-static-groups");
  }
  if (recipe.desc_act && recipe.order != Order::diagonal) {
    throw InputError(cat("--desc-act means the order of falling diagonal: drop --order ", name_of(recipe.order)));
  }
  if (recipe.method == Method::gptq && !recipe.desc_act && !recipe.static_groups && recipe.order == Order::diagonal) {
    throw InputError(
        "--order diagonal with --no-static-groups shuffles g_idx: say so with --desc-act, or keep static groups");
  }
  if (recipe.signed_scales == true && !recipe.sym)
    throw InputError("--signed-scales with --asym: an asymmetric grid has zeros for that; drop one of them");
  if (recipe.alpha && !(*recipe.alpha > 0 && *recipe.alpha <= 1))
    throw InputError(cat("--alpha ", *recipe.alpha, ": it is a share of the correction, more than 0 and at most 1"));
  if (recipe.alpha && recipe.targets == Targets::weights)
    throw InputError("--alpha is a share of what --targets corrected or gptaq adds: name one of them, or drop --alpha");
  const std::vector<RefineStage> stages = refine_stages(recipe.refine);
  if (recipe.desc_act && std::any_of(stages.begin(), stages.end(), [](const RefineStage& s) { return s.refit; }))
    throw InputError("--refine with r needs groups of neighbouring columns, and --desc-act shuffles them: drop one");
  if (recipe.method == Method::rtn && (recipe.targets != Targets::weights || !stages.empty()))
    throw InputError("--targets and --refine need Hessians, and --method rtn has none: drop them");
  if (!recipe.sym && recipe.checkpoint_format == CheckpointFormat::gptq) {
    throw InputError(
        "--asym with --checkpoint-format gptq: its stored zero - 1 is read differently by different loaders when a "
        "zero is 0; use gptq_v2");
  }
}

Recipe resolved(Recipe recipe) {
  const bool few_bits = recipe.bits <= 3 && recipe.method == Method::gptq;
  if (!recipe.signed_scales) recipe.signed_scales = recipe.sym && few_bits;
  if (!recipe.alpha) recipe.alpha = recipe.bits == 2 ? 0.25 : 0.5;
  if (recipe.refine.empty()) {
    // A refit needs groups of neighbouring columns.
    const char* at_two = recipe.desc_act ? "c4" : "r c2 r c2 r";
    recipe.refine = !few_bits ? "none" : recipe.bits == 2 ? at_two : "c4";
  }
  return recipe;
}

std::vector<RefineStage> refine_stages(const std::string& refine) {
  std::vector<RefineStage> stages;
  if (refine == "none") return stages;
  std::istringstream words(refine);
  for (std::string word; words >> word;) {
    const bool sweeps = word.size() == 2 && word[0] == 'c' && word[1] >= '1' && word[1] <= '9';
    if (word != "r" && !sweeps) {
      throw InputError(cat("--refine '", refine, "': '", word,
                           "' is no stage; there are r (refit the scales) and c1 to c9 (sweeps over the codes), as in "
                           "'r c2 r', or none"));
    }
    stages.push_back({word == "r", sweeps ? word[1] - '0' : 0});
  }
  return stages;
}

CheckpointFormat resolved_format(const Recipe& recipe) {
  if (recipe.checkpoint_format != CheckpointFormat::automatic) return recipe.checkpoint_format;
  const bool any_zeros = !recipe.sym || std::any_of(recipe.dynamic.begin(), recipe.dynamic.end(),
                                                    [](const ModuleRule& rule) { return rule.sym == false; });
  return any_zeros ? CheckpointFormat::gptq_v2 : CheckpointFormat::gptq;
}

std::string_view name_of(Method method) { return method == Method::gptq ? "gptq" : "rtn"; }

std::string_view name_of(ScaleSearch search) {
  switch (search) {
    case ScaleSearch::diag:
      return "diag";
    case ScaleSearch::mse:
      return "mse";
    case ScaleSearch::minmax:
      return "minmax";
  }
  return "?";
}

std::string_view name_of(Order order) {
  switch (order) {
    case Order::diagonal:
      return "diagonal";
    case Order::group_aware:
      return "group-aware";
    case Order::natural:
      return "natural";
  }
  return "?";
}

std::string_view name_of(Targets targets) {
  switch (targets) {
    case Targets::weights:
      return "weights";
    case Targets::corrected:
      return "corrected";
    case Targets::gptaq:
      return "gptaq";
  }
  return "?";
}

std::string_view name_of(CheckpointFormat format) {
  switch (format) {
    case CheckpointFormat::automatic:
      return "auto";
    case CheckpointFormat::gptq:
      return "gptq";
    case CheckpointFormat::gptq_v2:
      return "gptq_v2";
    case CheckpointFormat::compressed_tensors:
      return "compressed-tensors";
  }
  return "?";
}

}  // namespace gptq
