// The group size of a recipe that names none.
#pragma once

#include <string>

#include "gptq/recipe.h"
#include "model/architecture.h"

namespace gptq {

// Sets Recipe::group_size where it is empty: the first of kGroupSizes that divides the inputs of all linears that the
// recipe quantizes, but for those whose rule has one. Returns a sentence that says which and why; empty where nothing
// was open. Throws InputError, naming the linear and what is possible, where none of them does.
std::string settle_group_size(Recipe& recipe, const ModelConfig& config);

}  // namespace gptq
