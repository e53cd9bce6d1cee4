// Recipes: presets, names of choices, and what contradicts what.
#pragma once

#include <string_view>
#include <vector>

#include "ops/grid.h"
#include "gptq/gptq.h"

namespace gptq {

// Throws InputError naming the flag for bits, group sizes, damping or combinations that make no sense.
void validate(const Recipe& recipe);

// The same recipe with everything that was left open decided, for its bits and method.
Recipe resolved(Recipe recipe);

// One stage of Recipe::refine.
struct RefineStage {
  bool refit = false;  // or sweeps
  int sweeps = 0;
};
// Throws InputError for anything but "none" or stages such as "r c2 r".
std::vector<RefineStage> refine_stages(const std::string& refine);

// The search that a resolved recipe's scale_search stands for (mse: the paper's code, |error|^2.4 over 80 candidates
// down to 0.2).
GridSearch grid_search(const Recipe& recipe);

// The format a recipe is written in: never automatic.
CheckpointFormat resolved_format(const Recipe& recipe);

std::string_view name_of(Method method);
std::string_view name_of(ScaleSearch search);
std::string_view name_of(Order order);
std::string_view name_of(Targets targets);
std::string_view name_of(CheckpointFormat format);

}  // namespace gptq
