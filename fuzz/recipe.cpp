// Recipe files. Parts of an input: the file, the name of a module.
#include "recipe/recipe.h"

#include <nlohmann/json.hpp>

#include "fuzz/fuzz.h"
#include "recipe/recipe_file.h"
#include "recipe/rules.h"

using namespace gptq;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parts = fuzz::parts_of(data, size, 2);
  fuzz::folder().write("recipe.json", parts[0]);
  fuzz::may_refuse([&] {
    const Recipe recipe = read_recipe(fuzz::folder() / "recipe.json");
    validate(recipe);
    validate_rules(recipe);
    recipe_for(recipe, parts[1].empty() ? "model.layers.3.mlp.up_proj" : parts[1]);
    recipe_for_head(recipe, "lm_head");
    parse_recipe(to_json(recipe), "its JSON");
  });
  return 0;
}
