// Recipes as JSON: read from a file of the user's or a quantize_config.json, written into reports.
#include <algorithm>
#include <array>
#include <initializer_list>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "recipe/rules.h"

namespace gptq {
namespace {

template <typename Choice>
Choice choice_of(const std::string& word, std::initializer_list<Choice> choices) {
  std::string known;
  for (const Choice choice : choices) {
    if (name_of(choice) == word) return choice;
    known += cat(known.empty() ? "" : ", ", name_of(choice));
  }
  throw InputError(cat("'", word, "' is not known; there are ", known));
}

// Says what others have decided, or nothing about codes.
constexpr std::array kIgnored = {"quant_method", "pack_dtype", "preset"};

// Sets what one key says.
void set(Recipe& recipe, const std::string& key, const Json& value) {
  const auto word = [&] { return value.get<std::string>(); };
  if (key == "bits")
    recipe.bits = value.get<int>();
  else if (key == "lm_head")
    recipe.lm_head = value.get<bool>();
  else if (key == "expert_tokens")
    recipe.expert_tokens = value.get<int64_t>();
  else if (key == "moe_calibrate_all_experts")
    recipe.moe_calibrate_all_experts = value.get<bool>();
  else if (key == "average_bits")
    recipe.average_bits = value.get<double>();
  else if (key == "group_size")
    recipe.group_size = value.get<int64_t>();
  else if (key == "sym")
    recipe.sym = value.get<bool>();
  else if (key == "method" || key == "quantization_method")
    recipe.method = choice_of(word(), {Method::gptq, Method::rtn});
  else if (key == "scale_search")
    recipe.scale_search = choice_of(word(), {ScaleSearch::diag, ScaleSearch::mse, ScaleSearch::minmax});
  else if (key == "order")
    recipe.order = choice_of(word(), {Order::diagonal, Order::group_aware, Order::natural});
  else if (key == "static_groups")
    recipe.static_groups = value.get<bool>();
  else if (key == "desc_act")
    recipe.desc_act = value.get<bool>();
  else if (key == "damp_percent")
    recipe.damp_percent = value.get<double>();
  else if (key == "true_sequential")
    recipe.true_sequential = value.get<bool>();
  else if (key == "modules_in_block_to_quantize")
    recipe.modules_in_block_to_quantize = value.get<std::vector<std::vector<std::string>>>();
  else if (key == "checkpoint_format" || key == "format")
    recipe.checkpoint_format = choice_of(word(), {CheckpointFormat::automatic, CheckpointFormat::gptq,
                                                  CheckpointFormat::gptq_v2, CheckpointFormat::compressed_tensors});
  else if (key == "signed_scales")
    recipe.signed_scales = value.get<bool>();
  else if (key == "targets")
    recipe.targets = choice_of(word(), {Targets::weights, Targets::corrected, Targets::gptaq});
  else if (key == "alpha")
    recipe.alpha = value.get<double>();
  else if (key == "refine")
    recipe.refine = word();
  else
    throw InputError("there is no such key");
}

// Whether a quantize_config.json is of this program, whose meta says how its codes were found.
bool is_own_record(const Json& meta) {
  const auto quantizer = meta.is_object() ? meta.find("quantizer") : meta.end();
  return quantizer != meta.end() && quantizer->is_array() && !quantizer->empty() && quantizer->front().is_string() &&
         quantizer->front().get<std::string>().starts_with("gptq.cpp:");
}

}  // namespace

Recipe read_recipe(const std::string& file, const Recipe& base) {
  const Json json = read_json(file);
  if (!json.is_object()) throw InputError(cat(file, ": a recipe is a JSON object, such as {\"bits\": 3}"));
  std::string at;  // the key being read
  try {
    Recipe recipe = base;
    if (const auto preset = json.find("preset"); preset != json.end()) {
      at = "preset";
      recipe = recipe_preset(preset->get<std::string>());
    }
    const auto read = [&](const std::string& key, const Json& value) {
      at = key;
      if (value.is_null() || std::find(kIgnored.begin(), kIgnored.end(), key) != kIgnored.end()) return;
      if (key == "dynamic")
        recipe.dynamic = parse_rules(value, file);
      else
        set(recipe, key, value);
    };
    for (const auto& [key, value] : json.items()) {
      if (key != "meta") read(key, value);
    }
    if (const auto meta = json.find("meta"); meta != json.end() && is_own_record(*meta)) {
      for (const auto& [key, value] : meta->items()) {
        if (key != "quantizer" && key != "act_group_aware") read(key, value);
      }
    }
    return recipe;
  } catch (const nlohmann::json::exception&) {
    throw InputError(cat(file, ": ", at, ": its value is of another kind than the option's"));
  } catch (const InputError& error) {
    if (at == "dynamic") throw;
    throw InputError(cat(file, ": ", at, ": ", error.what()));
  }
}

Json to_json(const Recipe& recipe) {
  const Recipe decided = resolved(recipe);
  Json json = {{"method", name_of(recipe.method)},
               {"bits", recipe.bits},
               {"average_bits", recipe.average_bits},
               {"group_size", recipe.group_size},
               {"sym", recipe.sym},
               {"scale_search", name_of(recipe.scale_search)},
               {"order", name_of(recipe.order)},
               {"static_groups", recipe.static_groups},
               {"desc_act", recipe.desc_act},
               {"damp_percent", recipe.damp_percent},
               {"true_sequential", recipe.true_sequential},
               {"signed_scales", *decided.signed_scales},
               {"targets", name_of(recipe.targets)}};
  if (recipe.targets != Targets::weights) json["alpha"] = *decided.alpha;
  json["refine"] = decided.refine;
  json["lm_head"] = recipe.lm_head;
  json["expert_tokens"] = recipe.expert_tokens;
  json["moe_calibrate_all_experts"] = recipe.moe_calibrate_all_experts;
  if (!recipe.dynamic.empty()) json["dynamic"] = to_json(recipe.dynamic);
  return json;
}

}  // namespace gptq
