// Recipes as JSON: read from a user's file or a quantize_config.json (read_recipe(), gptq/recipe.h), written into
// reports and configs.
#pragma once

#include "gptq/recipe.h"
#include "io/checkpoint.h"

namespace gptq {

// All choices of a recipe, the open ones as they are made for its bits, by the names that read_recipe() knows. Lists
// and rules that are empty are left out, and so are choices without a meaning next to the others.
Json to_json(const Recipe& recipe);

// read_recipe() of a JSON object; `where` names it in errors.
Recipe parse_recipe(const Json& json, const std::string& where, const Recipe& base = {});

// How the codes of an output were found: the `meta` of its config, from which read_recipe() reads them again.
Json recipe_record(const Recipe& recipe);

}  // namespace gptq
