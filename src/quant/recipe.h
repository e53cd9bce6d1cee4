// Recipes: presets, names of choices, and what contradicts what.
#pragma once

#include <string_view>

#include "backend/ops.h"
#include "gptq/gptq.h"

namespace gptq {

// Throws InputError naming the flag for bits, group sizes, damping or combinations that make no sense.
void validate(const Recipe& recipe);

// The search that a recipe's scale_search stands for (mse: the paper's code, |error|^2.4 over 80 candidates down to
// 0.2).
GridSearch grid_search(const Recipe& recipe);

// The format a recipe is written in: never automatic.
CheckpointFormat resolved_format(const Recipe& recipe);

std::string_view name_of(Method method);
std::string_view name_of(ScaleSearch search);
std::string_view name_of(Order order);
std::string_view name_of(CheckpointFormat format);

}  // namespace gptq
