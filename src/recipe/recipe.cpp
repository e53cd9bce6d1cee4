#include "recipe/recipe.h"

#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "recipe/option.h"

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
    recipe.round_dead_columns = false;
    return recipe;
  }
  if (name == "group-aware") {
    recipe.order = Order::group_aware;
    recipe.damp_percent = 0.05;
    return recipe;
  }
  throw option_error("preset", " ", name, ": there are default, best, paper and group-aware");
}

void validate(const Recipe& recipe) {
  check_ranges(recipe);
  if (recipe.average_bits != 0 && recipe.method == Method::rtn)
    throw option_error("average_bits",
                       " measures with Hessians what fewer bits cost, and `method` rtn has none: drop one");
  if (recipe.desc_act && recipe.static_groups) {
    throw option_error("desc_act",
                       " with static groups: that is `order` diagonal, the default; drop `desc_act`, or add "
                       "`static_groups=false`");
  }
  if (recipe.desc_act && recipe.order != Order::diagonal) {
    throw option_error("desc_act", " means the order of falling diagonal: drop `order` ", name_of(recipe.order));
  }
  if (recipe.method == Method::gptq && !recipe.desc_act && !recipe.static_groups && recipe.order == Order::diagonal) {
    throw option_error("order",
                       " diagonal with `static_groups=false` shuffles g_idx: say so with `desc_act`, or keep static "
                       "groups");
  }
  if (recipe.signed_scales == true && !recipe.sym)
    throw option_error("signed_scales", " with `sym=false`: an asymmetric grid has zeros for that; drop one of them");
  if (recipe.alpha && recipe.targets == Targets::weights)
    throw option_error("alpha",
                       " is a share of what `targets` corrected or gptaq adds: name one of them, or drop `alpha`");
  const std::vector<RefineStage> stages = refine_stages(recipe.refine);
  if (recipe.desc_act && std::any_of(stages.begin(), stages.end(), [](const RefineStage& s) { return s.refit; }))
    throw option_error("refine",
                       " with r needs groups of neighbouring columns, and `desc_act` shuffles them: drop one");
  if (recipe.method == Method::rtn && (recipe.targets != Targets::weights || !stages.empty()))
    throw option_error("targets", " and `refine` need Hessians, and `method` rtn has none: drop them");
}

ResolvedRecipe resolve(Recipe recipe) {
  for (const Option<Recipe>& row : option_rows<Recipe>()) {
    const bool open = row.decide != nullptr && is_open(row, recipe);
    if (open) row.decide(recipe);
  }
  return ResolvedRecipe(std::move(recipe));
}

std::vector<RefineStage> refine_stages(const std::string& refine) {
  std::vector<RefineStage> stages;
  if (refine == "none") return stages;
  std::istringstream words(refine);
  for (std::string word; words >> word;) {
    const bool sweeps = word.size() == 2 && word[0] == 'c' && word[1] >= '1' && word[1] <= '9';
    if (word != "r" && !sweeps) {
      throw option_error("refine", " '", refine, "': '", word,
                         "' is no stage; there are r (refit the scales) and c1 to c9 (sweeps over the codes), as in "
                         "'r c2 r', or none");
    }
    stages.push_back({word == "r", sweeps ? word[1] - '0' : 0});
  }
  return stages;
}

}  // namespace gptq
