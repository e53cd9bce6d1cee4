// Rules for single modules: which recipe each of them gets.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/specs.h"
#include "recipe/recipe.h"

namespace gptq {

// The recipe of one module: `recipe` with the first of its rules that matches. Nothing where the module stays as it is.
// Matches names as GPTQModel does, with Python's re.match.
std::optional<ResolvedRecipe> recipe_for(const Recipe& recipe, const std::string& module);

// The recipe of the output head; nothing where the recipe does not ask for it, or a rule skips it.
std::optional<ResolvedRecipe> recipe_for_head(const Recipe& recipe, const std::string& head);

// A linear and the recipe that recipe_for() has for it.
struct QuantizedLinear {
  LinearSpec spec;
  ResolvedRecipe recipe;
};

// The recipes of a step's linears, in their order.
std::vector<std::optional<ResolvedRecipe>> recipes_for(const Recipe& recipe, const std::vector<LinearSpec>& step);

// Throws InputError, naming the rule, for a pattern that does not compile or an override that makes no sense.
void validate_rules(const Recipe& recipe);

// Whether loaders that fuse linears can give both the same kernel.
bool fit_together(const std::optional<ResolvedRecipe>& a, const std::optional<ResolvedRecipe>& b);

// The same choices as `recipe`'s rules, for loaders that look a fused module up by its own name (qkv_proj): where its
// parts fit together and the rules say something else of that name, rules for it come first.
std::vector<ModuleRule> with_fused_names(const Recipe& recipe, const StepSpecs& steps);

// Patterns that match these names and no others, few where they differ in block numbers only.
std::vector<std::string> patterns_of(const std::vector<std::string>& modules);

// The same for all blocks: "model.layers.3.mlp.up_proj" -> "model.layers.*.mlp.up_proj".
std::string name_in_any_block(const std::string& module);

bool matches(const ModuleRule& rule, const std::string& module);
// The first rule that matches a module, or null.
const ModuleRule* rule_for(const std::vector<ModuleRule>& rules, const std::string& module);

// `dynamic` as GPTQModel has it: {"pattern": {"bits": 8}, "+:pattern": {...}, "-:pattern": {}}. Reading throws
// InputError, whose sentence starts with `where`; with `lenient`, overrides of other keys are ignored, as they do not
// change how codes are read.
std::vector<ModuleRule> parse_rules(const Json& dynamic, const std::string& where, bool lenient = false);
Json to_json(const std::vector<ModuleRule>& rules);

}  // namespace gptq
