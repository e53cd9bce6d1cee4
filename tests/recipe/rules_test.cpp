// Rules for single modules, and recipe files.
#include "recipe/rules.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "recipe/recipe_file.h"
#include "recipe_helpers.h"
#include "temporary_folder.h"

namespace gptq {
namespace {

using namespace testing_recipes;  // NOLINT: the helpers of these tests

TEST(Rules, TheFirstThatMatchesFromTheStartOfTheNameCounts) {
  const Recipe recipe =
      with_rules(R"({"-:.*\\.0\\.mlp": {}, "+:.*mlp": {"bits": 8, "group_size": 32}, ".*down": {"bits": 2},
                                       "self_attn": {"bits": 3}})");
  EXPECT_FALSE(recipe_for(recipe, "model.layers.0.mlp.down_proj").has_value());
  const auto down = recipe_for(recipe, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(down->bits, 8);
  EXPECT_EQ(down->group_size, 32);
  EXPECT_EQ(recipe_for(recipe, "model.layers.1.self_attn.q_proj")->bits, 4) << "a pattern begins where the name does";
}

TEST(Rules, WhatIsLeftOpenFollowsEachModulesBits) {
  const Recipe recipe =
      with_rules(R"({".*q_proj": {"bits": 3}, ".*k_proj": {"desc_act": true}, ".*v_proj": {"sym": false}})");
  EXPECT_TRUE(*recipe_for(recipe, "q_proj")->signed_scales);
  EXPECT_EQ(recipe_for(recipe, "q_proj")->refine, "c4");
  EXPECT_FALSE(*recipe_for(recipe, "o_proj")->signed_scales);
  EXPECT_FALSE(recipe_for(recipe, "k_proj")->static_groups) << "desc_act is an order of groups too";
}

TEST(Rules, AreWrittenAsTheyWereRead) {
  const char* text =
      R"({"-:.*lm_head": {}, "+:.*down": {"bits": 8, "group_size": -1, "sym": true, "desc_act": false}})";
  EXPECT_EQ(to_json(parse_rules(Json::parse(text), "here")), Json::parse(text));
}

TEST(Rules, ThatMakeNoSenseAreNamed) {
  const auto refusal = [](const std::string& dynamic) {
    return message_of([&] { validate_rules(with_rules(dynamic)); });
  };
  EXPECT_EQ(refusal(R"({"a.*b": {"bits": 8}, "-:c": {}})"), "");
  EXPECT_NE(refusal(R"({"(": {}})").find("'('"), std::string::npos);
  EXPECT_NE(refusal(R"({"-:*x": {}})").find("'*x'"), std::string::npos);
  EXPECT_NE(refusal(R"({"down": {"bits": 5}})").find("down"), std::string::npos);
  EXPECT_NE(refusal(R"({"down": {"bits": "8"}})").find("down"), std::string::npos);
  EXPECT_NE(refusal(R"({"down": {"rank": 8}})").find("rank"), std::string::npos);
  EXPECT_NE(refusal(R"({"down": 8})").find("down"), std::string::npos);
  EXPECT_NE(refusal(R"(["down"])").find("here"), std::string::npos);
  EXPECT_EQ(parse_rules(Json::parse(R"({"down": {"rank": 8, "bits": 3}})"), "here", true)[0].bits, 3)
      << "a folder of another program is read";
}

TEST(Rules, PatternsMatchTheirNamesAlone) {
  const std::vector<std::string> names = {"model.layers.1.mlp.down_proj", "model.layers.11.mlp.down_proj", "lm_head"};
  std::vector<ModuleRule> rules;
  for (const std::string& pattern : patterns_of(names)) rules.push_back({.pattern = pattern});
  EXPECT_EQ(rules.size(), 2U);
  const auto any = [&](const std::string& name) {
    return std::any_of(rules.begin(), rules.end(), [&](const ModuleRule& rule) { return matches(rule, name); });
  };
  for (const std::string& name : names) EXPECT_TRUE(any(name)) << name;
  for (const char* other : {"model.layers.111.mlp.down_proj", "model.layers.2.mlp.down_proj",
                            "modelxlayers.1.mlp.down_proj", "model.layers.1.mlp.down_proj2", "xlm_head"})
    EXPECT_FALSE(any(other)) << other;
}

TEST(Rules, FusedNamesGetWhatTheirPartsGet) {
  for (const char* dynamic : {R"({".*\\.0\\.self_attn\\.[qkv]_proj": {"bits": 8}})",
                              R"({"-:.*\\.1\\..*(q|k|v)_proj$": {}})", R"({".*qkv_proj": {"bits": 8}})"}) {
    Recipe recipe = with_rules(dynamic);
    recipe.dynamic = with_fused_names(recipe, attention_steps());
    for (const auto& step : attention_steps()) {
      for (const LinearSpec& linear : step) {
        if (linear.fused.empty()) continue;
        EXPECT_TRUE(fit_together(recipe_for(recipe, linear.name), recipe_for(recipe, linear.fused)))
            << dynamic << linear.name;
      }
    }
  }
  const Recipe plain = with_rules(R"({".*\\.0\\.": {"bits": 8}})");
  EXPECT_EQ(with_fused_names(plain, attention_steps()).size(), 1U)
      << "a rule that covers the fused name needs no other";
}

class RecipeFile : public testing::Test {
 protected:
  Recipe read(const std::string& text) {
    std::ofstream(path_) << text;
    return read_recipe(path_);
  }
  std::string refusal(const std::string& text) {
    return message_of([&] { read(text); });
  }
  TemporaryFolder folder_;
  const std::string path_ = (folder_.path() / "recipe.json").string();
};

TEST_F(RecipeFile, OfItsOwnJsonIsTheSameRecipe) {
  Recipe recipe = recipe_preset("best");
  recipe.bits = 3;
  recipe.damp_percent = 0.02;
  recipe.modules_in_block_to_quantize = {{"mlp.down_proj"}};
  recipe.dynamic = {{.pattern = "a", .skip = true}, {.pattern = "b", .bits = 8, .sym = false}};
  std::ofstream(path_) << to_json(recipe).dump();
  EXPECT_EQ(to_json(read_recipe(path_)), to_json(recipe));
}

TEST_F(RecipeFile, StartsFromItsPreset) {
  const Recipe recipe = read(R"({"bits": 3, "preset": "group-aware"})");
  EXPECT_EQ(recipe.order, Order::group_aware);
  EXPECT_EQ(recipe.bits, 3);
}

TEST_F(RecipeFile, OfGptqmodelGivesWhatIsAboutCodes) {
  const Recipe recipe = read(R"({"bits": 8, "group_size": 32, "desc_act": false, "sym": true, "quant_method": "gptq",
      "pack_dtype": "int32", "dynamic": {"-:.*gate": {}}, "meta": {"quantizer": ["gptqmodel:7.7.0"], "mse": 0.0}})");
  EXPECT_EQ(recipe.bits, 8);
  EXPECT_EQ(recipe.group_size, 32);
  ASSERT_EQ(recipe.dynamic.size(), 1U);
  EXPECT_TRUE(recipe.dynamic[0].skip);
}

TEST_F(RecipeFile, ThatMakesNoSenseIsNamedWithItsKey) {
  for (const auto& [text, word] :
       std::vector<std::pair<std::string, std::string>>{{"[]", "object"},
                                                        {"{", "recipe.json"},
                                                        {R"({"bitz": 4})", "bitz"},
                                                        {R"({"bits": "4"})", "bits"},
                                                        {R"({"order": "up"})", "group-aware"},
                                                        {R"({"preset": "worst"})", "worst"},
                                                        {R"({"dynamic": {"a": 1}})", "'a'"}}) {
    const std::string message = refusal(text);
    EXPECT_NE(message.find(path_), std::string::npos) << message;
    EXPECT_NE(message.find(word), std::string::npos) << message;
  }
}

}  // namespace
}  // namespace gptq
