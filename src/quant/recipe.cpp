#include "quant/recipe.h"

#include "base/error.h"

namespace gptq {

Recipe recipe_preset(const std::string& name) {
  Recipe recipe;
  if (name == "default") return recipe;
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
  throw InputError(cat("--preset ", name, ": there are default, paper and group-aware"));
}

void validate(const Recipe& recipe) {
  if (recipe.bits != 2 && recipe.bits != 3 && recipe.bits != 4 && recipe.bits != 8) {
    throw InputError(cat("--bits ", recipe.bits, ": the GPTQ format holds 2, 3, 4 or 8"));
  }
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
  if (!recipe.sym && recipe.checkpoint_format == CheckpointFormat::gptq) {
    throw InputError(
        "--asym with --checkpoint-format gptq: its stored zero - 1 is read differently by different loaders when a "
        "zero is 0; use gptq_v2");
  }
}

GridSearch grid_search(const Recipe& recipe) {
  GridSearch search{.bits = recipe.bits, .symmetric = recipe.sym};
  if (recipe.scale_search == ScaleSearch::diag) {
    search.candidates = 40;
    search.shrink_step = 0.0175F;
  } else if (recipe.scale_search == ScaleSearch::mse) {
    search.candidates = 80;
    search.shrink_step = 0.01F;
    search.norm = 2.4F;
  }
  return search;
}

CheckpointFormat resolved_format(const Recipe& recipe) {
  if (recipe.checkpoint_format != CheckpointFormat::automatic) return recipe.checkpoint_format;
  return recipe.sym ? CheckpointFormat::gptq : CheckpointFormat::gptq_v2;
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

std::string_view name_of(CheckpointFormat format) {
  switch (format) {
    case CheckpointFormat::automatic:
      return "auto";
    case CheckpointFormat::gptq:
      return "gptq";
    case CheckpointFormat::gptq_v2:
      return "gptq_v2";
  }
  return "?";
}

}  // namespace gptq
