// The group size of a recipe that names none.
#include "plan/group_size.h"

#include <gtest/gtest.h>

#include "recipe_helpers.h"
#include "tiny_model.h"

namespace gptq {
namespace {

using namespace testing_recipes;  // NOLINT: the helpers of these tests

ModelConfig config_of(int64_t hidden, int64_t intermediate) {
  return parse_model_config(testing_model::tiny_config({.hidden = hidden, .intermediate = intermediate}), "here");
}

TEST(GroupSize, IsTheLargestThatDividesAllInputs) {
  struct Case {
    int64_t hidden, intermediate, size;
  };
  // The inputs of o_proj are 4 heads of 16 each.
  for (const Case& c : {Case{64, 128, 64}, Case{128, 256, 64}, Case{64, 96, 32}, Case{160, 192, 32}}) {
    Recipe recipe;
    const std::string text = settle_group_size(recipe, config_of(c.hidden, c.intermediate));
    EXPECT_EQ(recipe.group_size, c.size);
    EXPECT_NE(text.find(cat("group size: ", c.size, ", as ", 2 * c.size, " does not divide")), std::string::npos)
        << text;
  }
  Recipe recipe;
  recipe.modules_in_block_to_quantize = {{"mlp.down_proj"}};
  EXPECT_EQ(settle_group_size(recipe, config_of(96, 256)), "group size: 128, which divides the inputs of all linears");
  EXPECT_EQ(recipe.group_size, 128);
}

TEST(GroupSize, OneThatIsNamedStays) {
  Recipe recipe;
  recipe.group_size = 48;
  EXPECT_EQ(settle_group_size(recipe, config_of(64, 96)), "");
  EXPECT_EQ(recipe.group_size, 48);
}

TEST(GroupSize, LinearsWithARuleOfTheirOwnAreNotAsked) {
  Recipe recipe;
  recipe.dynamic = {{.pattern = ".*down_proj", .group_size = 16}};
  settle_group_size(recipe, config_of(64, 80));
  EXPECT_EQ(recipe.group_size, 64);
  recipe = {};
  recipe.dynamic = {{.pattern = ".*down_proj", .skip = true}};
  settle_group_size(recipe, config_of(64, 80));
  EXPECT_EQ(recipe.group_size, 64);
}

TEST(GroupSize, WithoutOneThatDividesAllItIsSaidWhatIsPossible) {
  Recipe recipe;
  const std::string message = message_of([&] { settle_group_size(recipe, config_of(64, 80)); });
  EXPECT_NE(message.find("none of 128, 64 and 32 divides the 80 inputs of model.layers.0.mlp.down_proj"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("give `group_size` 16, 8, or -1"), std::string::npos) << message;
  EXPECT_FALSE(recipe.group_size.has_value());
  EXPECT_NE(message_of([&] { settle_group_size(recipe, config_of(64, 100)); }).find("give `group_size` -1"),
            std::string::npos);
}

}  // namespace
}  // namespace gptq
