// Formats and loaders of folders whose modules differ by rules.
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "format/huggingface.h"
#include "format/loaders.h"
#include "recipe/recipe_file.h"
#include "recipe/rules.h"
#include "recipe_helpers.h"
#include "temporary_folder.h"

namespace gptq {
namespace {

using namespace testing_recipes;  // NOLINT: the helpers of these tests

Json config_of(const OutputRecord& record) {
  return dynamic_cast<const HuggingFaceFormat&>(format_of(record.recipe)).config(record);
}

TEST(MixedFolder, AModuleThatIsSkippedOrHasOtherBitsMakesAFusedLoaderRefuse) {
  const auto verdict = [](const std::string& dynamic, const std::string& loader) {
    const Recipe recipe = with_rules(dynamic);
    std::vector<StoredLinear> linears;
    for (const auto& step : attention_steps()) {
      for (const LinearSpec& linear : step) {
        linears.push_back({linear, {}});
        if (const auto own = recipe_for(recipe, linear.name))
          linears.back().config = stored_as(format_of(recipe), *own);
      }
    }
    for (const LoaderVerdict& found : format_of(recipe).loaders(linears)) {
      if (found.loader == loader) return found;
    }
    return LoaderVerdict{};
  };
  EXPECT_TRUE(verdict(R"({".*\\.0\\.self_attn\\.[qkv]_proj": {"bits": 8}})", "vLLM").accepts);
  EXPECT_TRUE(verdict(R"({"-:.*\\.0\\.self_attn\\.[qkv]_proj": {}})", "vLLM").accepts);
  for (const char* split : {R"({".*q_proj": {"bits": 8}})", R"({"-:.*v_proj": {}})"}) {
    const LoaderVerdict refused = verdict(split, "vLLM");
    EXPECT_FALSE(refused.accepts);
    EXPECT_NE(refused.reason.find("as one module"), std::string::npos) << refused.reason;
    EXPECT_FALSE(verdict(split, "SGLang").accepts);
    EXPECT_TRUE(verdict(split, "GPTQModel").accepts);
    EXPECT_EQ(verdict(split, "transformers + Optimum").accepts, split == std::string(R"({"-:.*v_proj": {}})"))
        << "what all blocks skip alike is in modules_in_block_to_quantize";
  }
  EXPECT_NE(
      verdict(R"({".*\\.1\\.self_attn\\.o_proj": {"bits": 3}})", "vLLM").reason.find("model.layers.1.self_attn.o_proj"),
      std::string::npos);
}

TEST(MixedFolder, RulesBecomeGroupsOfCompressedTensors) {
  Recipe recipe = with_rules(R"({".*o_proj": {"bits": 8, "group_size": -1}})");
  recipe.checkpoint_format = "compressed-tensors";
  std::vector<QuantizedLinear> linears;
  for (const auto& step : attention_steps()) {
    for (const LinearSpec& linear : step) linears.push_back({linear, *recipe_for(recipe, linear.name)});
  }
  const Json groups = config_of({recipe, linears, {"lm_head"}})["config_groups"];
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups["group_0"]["weights"]["num_bits"], 4);
  EXPECT_EQ(groups["group_1"]["weights"]["num_bits"], 8);
  EXPECT_EQ(groups["group_1"]["weights"]["strategy"], "channel");
  EXPECT_EQ(groups["group_1"]["targets"], Json({"model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj"}));
  const Json& targets = groups["group_0"]["targets"];
  EXPECT_EQ(std::count(targets.begin(), targets.end(), Json("model.layers.1.self_attn.qkv_proj")), 1);
  EXPECT_EQ(std::count(targets.begin(), targets.end(), Json("Linear")), 0);
}

TEST(RecipeFile, OfAWrittenConfigIsTheSameRecipe) {
  const TemporaryFolder folder;
  const std::string path = (folder.path() / "quantize_config.json").string();
  Recipe recipe = recipe_preset("best");
  recipe.bits = 3;
  recipe.damp_percent = 0.02;
  recipe.modules_in_block_to_quantize = {{"mlp.down_proj"}};
  recipe.dynamic = {{.pattern = "a", .skip = true}, {.pattern = "b", .bits = 8, .sym = false}};
  recipe.checkpoint_format = format_of(recipe).name();  // as in the config
  std::ofstream(path) << config_of({recipe}).dump();
  const Recipe again = read_recipe(path);
  EXPECT_EQ(to_json(again), to_json(recipe));
  EXPECT_EQ(again.modules_in_block_to_quantize, recipe.modules_in_block_to_quantize);
  EXPECT_EQ(recipe_for(again, "x.mlp.down_proj")->alpha, recipe_for(recipe, "x.mlp.down_proj")->alpha);
}

}  // namespace
}  // namespace gptq
