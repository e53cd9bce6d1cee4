// Recipes: presets, contradictions, and the choices that are made for a module's bits.
#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "gptq/recipe.h"
#include "recipe/words.h"

namespace gptq {

// Throws InputError, about the option, for values out of range or combinations that make no sense.
void validate(const Recipe& recipe);

// A recipe whose open choices are made for its bits and method: each optional has a value, and refine is not empty.
class ResolvedRecipe : public Recipe {
 private:
  explicit ResolvedRecipe(Recipe recipe) : Recipe(std::move(recipe)) {}
  friend ResolvedRecipe resolve(Recipe recipe);
};
ResolvedRecipe resolve(Recipe recipe);

// The sizes of groups that are tried where a recipe names none, the preferred one first.
inline constexpr std::array<int64_t, 3> kGroupSizes = {128, 64, 32};

// One stage of Recipe::refine.
struct RefineStage {
  bool refit = false;  // or sweeps
  int sweeps = 0;
};
// Throws InputError for anything but "none" or stages such as "r c2 r".
std::vector<RefineStage> refine_stages(const std::string& refine);

}  // namespace gptq
