// Recipes: presets, contradictions, automatic choices, and the table of options.
#include "recipe/recipe.h"

#include <cmath>
#include <functional>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "recipe/option.h"
#include "recipe/recipe_file.h"
#include "recipe_helpers.h"

namespace gptq {
namespace {

using namespace testing_recipes;  // NOLINT: the helpers of these tests

TEST(Recipe, RefusesContradictions) {
  const auto refused = [](auto change) {
    Recipe recipe;
    change(recipe);
    return !message_of([&] { validate(recipe); }).empty();
  };
  EXPECT_FALSE(refused([](Recipe&) {}));
  EXPECT_TRUE(refused([](Recipe& r) { r.bits = 5; }));
  EXPECT_TRUE(refused([](Recipe& r) { r.group_size = 0; }));
  EXPECT_TRUE(refused([](Recipe& r) { r.group_size = -2; }));
  EXPECT_TRUE(refused([](Recipe& r) { r.damp_percent = 0; }));
  EXPECT_TRUE(refused([](Recipe& r) { r.damp_percent = 1; }));
  EXPECT_TRUE(refused([](Recipe& r) { r.damp_percent = std::nan(""); }));
  EXPECT_TRUE(refused([](Recipe& r) { r.desc_act = true; }));
  EXPECT_TRUE(refused([](Recipe& r) { r.static_groups = false; }));
  EXPECT_THROW(recipe_preset("fast"), InputError);
  for (const char* preset : {"default", "paper", "group-aware"})
    EXPECT_NO_THROW(validate(recipe_preset(preset))) << preset;
}

TEST(Recipe, OpenChoicesAreMadeForTheBits) {
  Recipe recipe;
  EXPECT_EQ(resolve(recipe).signed_scales, false);
  EXPECT_EQ(resolve(recipe).refine, "none");
  EXPECT_EQ(resolve(recipe).alpha, 0.5);
  recipe.bits = 3;
  EXPECT_EQ(resolve(recipe).signed_scales, true);
  EXPECT_EQ(resolve(recipe).refine, "c4");
  recipe.bits = 2;
  EXPECT_EQ(resolve(recipe).refine, "r c2 r c2 r");
  EXPECT_EQ(resolve(recipe).alpha, 0.25);
  recipe.desc_act = true;
  EXPECT_EQ(resolve(recipe).refine, "c4") << "a refit needs groups of neighbouring columns";
  recipe.sym = false;
  EXPECT_EQ(resolve(recipe).signed_scales, false);
  recipe.refine = "c1";
  recipe.alpha = 0.3;
  EXPECT_EQ(resolve(recipe).refine, "c1") << "a choice that is made stays";
  EXPECT_EQ(resolve(recipe).alpha, 0.3);
}

TEST(Recipe, ErrorsAreAboutTheirOption) {
  for (const auto& [key, change] : std::vector<std::pair<std::string, std::function<void(Recipe&)>>>{
           {"bits", [](Recipe& r) { r.bits = 5; }},
           {"alpha", [](Recipe& r) { r.alpha = 0.5; }},
           {"damp_percent", [](Recipe& r) { r.damp_percent = 2; }},
           {"refine", [](Recipe& r) { r.refine = "x"; }}}) {
    Recipe recipe;
    change(recipe);
    try {
      validate(recipe);
      ADD_FAILURE() << key;
    } catch (const InputError& error) {
      EXPECT_EQ(error.subject().option, key);
      EXPECT_EQ(std::string(error.what()).rfind("`" + key + "`", 0), 0U) << error.what();
    }
  }
}

TEST(Recipe, TheGroupSizeIsANumberOrAuto) {
  const auto read = [](const char* json) { return parse_recipe(Json::parse(json), "here"); };
  EXPECT_FALSE(read("{}").group_size.has_value());
  EXPECT_FALSE(read(R"({"group_size": "auto"})").group_size.has_value());
  EXPECT_EQ(read(R"({"group_size": "64"})").group_size, 64);
  EXPECT_EQ(read(R"({"group_size": -1})").group_size, -1);
  for (const char* json : {R"({"group_size": "64x"})", R"({"group_size": "automatic"})", R"({"group_size": 1.5})",
                           R"({"group_size": [64]})", R"({"group_size": ""})"})
    EXPECT_NE(message_of([&] { read(json); }).find("here: group_size"), std::string::npos) << json;
  Recipe named;
  named.group_size = 64;
  EXPECT_FALSE(parse_recipe(Json::parse(R"({"group_size": "auto"})"), "here", named).group_size.has_value());
  EXPECT_EQ(resolve(Recipe{}).group_size, 128) << "where no model says otherwise";
}

TEST(OptionTable, KeysAreNamedOnce) {
  std::vector<std::string> keys;
  for (const Option<Recipe>& row : option_rows<Recipe>()) {
    keys.emplace_back(row.key);
    if (!row.alias.empty()) keys.emplace_back(row.alias);
  }
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(std::adjacent_find(keys.begin(), keys.end()), keys.end());
}

TEST(OptionTable, EveryWordIsInTheHelp) {
  for (const Option<Recipe>& row : option_rows<Recipe>()) {
    for (const std::string& word : row.access.words)
      EXPECT_NE(std::string(row.help).find(word), std::string::npos) << row.key << " " << word;
  }
}

TEST(OptionTable, ValuesComeBackFromJson) {
  Recipe recipe = recipe_preset("group-aware");
  recipe.targets = Targets::gptaq;
  recipe.bits = 2;
  recipe.group_size = 64;
  recipe.average_bits = 2.5;
  recipe.sym = false;
  recipe.alpha = 0.75;
  recipe.lm_head = true;
  recipe.expert_tokens = 7;
  recipe.moe_calibrate_all_experts = true;
  recipe.true_sequential = false;
  recipe.checkpoint_format = "compressed-tensors";
  recipe.modules_in_block_to_quantize = {{"mlp.up_proj"}, {"mlp.down_proj"}};
  recipe.dynamic = {{.pattern = "a", .bits = 8}};
  const Json json = to_json(recipe);
  Recipe again;
  for (const Option<Recipe>& row : option_rows<Recipe>()) {
    ASSERT_TRUE(json.contains(std::string(row.key))) << row.key;
    row.access.set(again, json[std::string(row.key)]);
  }
  EXPECT_EQ(to_json(again), json);
  EXPECT_EQ(again.order, Order::group_aware);
  EXPECT_EQ(again.damp_percent, 0.05);
}

}  // namespace
}  // namespace gptq
