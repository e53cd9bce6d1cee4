// What tests of recipes and of formats share: messages of refusals, recipes with rules, and a model's attention.
#pragma once

#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "recipe/rules.h"

namespace gptq::testing_recipes {

// The message of the InputError that the call throws; empty if it throws none.
inline std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

inline Recipe with_rules(const std::string& dynamic) {
  Recipe recipe;
  recipe.dynamic = parse_rules(Json::parse(dynamic), "here");
  return recipe;
}

inline LinearSpec part(const std::string& name, const std::string& fused = {}) {
  return {name, 256, 256, false, fused};
}

// Two blocks of q, k, v | o.
inline StepSpecs attention_steps() {
  StepSpecs steps;
  for (const char* block : {"model.layers.0.", "model.layers.1."}) {
    const std::string prefix = block, fused = prefix + "self_attn.qkv_proj";
    steps.push_back({part(prefix + "self_attn.q_proj", fused), part(prefix + "self_attn.k_proj", fused),
                     part(prefix + "self_attn.v_proj", fused)});
    steps.push_back({part(prefix + "self_attn.o_proj")});
  }
  return steps;
}

}  // namespace gptq::testing_recipes
