#include "recipe/recipe_file.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "gptq/version.h"
#include "recipe/option.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

constexpr const char* kQuantizer = "quantizer";
constexpr const char* kGroupAware = "act_group_aware";  // GPTQModel's word, in its records

// Keys that repeat other choices, or say nothing about codes.
constexpr std::array kIgnored = {"quant_method", "pack_dtype", "preset", "meta", kQuantizer, kGroupAware};

void set(Recipe& recipe, const std::string& key, const Json& value) {
  for (const Option<Recipe>& row : option_rows<Recipe>()) {
    if (row.key == key || row.alias == key) return row.access.set(recipe, value);
  }
  throw InputError("there is no such key");
}

// Whether a quantize_config.json is of this program, whose meta says how its codes were found.
bool is_own_record(const Json& meta) {
  const auto quantizer = meta.is_object() ? meta.find(kQuantizer) : meta.end();
  return quantizer != meta.end() && quantizer->is_array() && !quantizer->empty() && quantizer->front().is_string() &&
         quantizer->front().get<std::string>().starts_with("gptq.cpp:");
}

}  // namespace

Recipe read_recipe(const std::string& file, const Recipe& base) { return parse_recipe(read_json(file), file, base); }

Recipe parse_recipe(const Json& json, const std::string& file, const Recipe& base) {
  if (!json.is_object()) throw InputError(cat(file, ": a recipe is a JSON object, such as {\"bits\": 3}"));
  std::string at;  // the key being read
  const auto fail = [&](const std::string& text) {
    throw InputError(cat(file, ": ", at, ": ", text), {.option = at, .file = file, .tensor = {}});
  };
  Recipe recipe = base;
  try {
    if (const auto preset = json.find("preset"); preset != json.end()) {
      at = "preset";
      recipe = recipe_preset(preset->get<std::string>());
    }
    const auto read = [&](const Json& object) {
      for (const auto& [key, value] : object.items()) {
        at = key;
        if (value.is_null() || std::find(kIgnored.begin(), kIgnored.end(), key) != kIgnored.end()) continue;
        set(recipe, key, value);
      }
    };
    read(json);
    if (const auto meta = json.find("meta"); meta != json.end() && is_own_record(*meta)) read(*meta);
  } catch (const nlohmann::json::exception&) {
    fail("its value is of another kind than the option's");
  } catch (const InputError& error) {
    fail(error.what());
  }
  return recipe;
}

Json to_json(const Recipe& recipe) {
  const ResolvedRecipe decided = resolve(recipe);
  Json json = Json::object();
  for (const Option<Recipe>& row : option_rows<Recipe>()) {
    const Json value = row.access.get(decided);
    const bool counts = row.counts == nullptr || row.counts(recipe);
    if (counts && !value.is_null()) json[std::string(row.key)] = value;
  }
  return json;
}

Json recipe_record(const Recipe& recipe) {
  const ResolvedRecipe decided = resolve(recipe);
  Json record = {{kQuantizer, {"gptq.cpp:" + version()}}};
  for (const Option<Recipe>& row : option_rows<Recipe>()) {
    if (!row.recorded || (row.counts != nullptr && !row.counts(recipe))) continue;
    // With rules, an open choice is made for each module by its bits.
    if (row.decide != nullptr && is_open(row, recipe) && !recipe.dynamic.empty()) continue;
    record[std::string(row.alias.empty() ? row.key : row.alias)] = row.access.get(decided);
    if (row.key == "order") record[kGroupAware] = recipe.order == Order::group_aware;
  }
  return record;
}

}  // namespace gptq
