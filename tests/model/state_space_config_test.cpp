// config.json of families with state spaces: spellings, and what is refused.
#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json.h"
#include "model/architecture.h"

namespace gptq {
namespace {

ModelConfig parse(const Json& config) { return parse_model_config(config, "some/folder"); }

template <typename E>
std::string refusal(const Json& config) {
  try {
    parse(config);
  } catch (const E& error) {
    EXPECT_NE(std::string(error.what()).find("some/folder/config.json"), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << config.dump();
  return "";
}
bool names(const std::string& message, const std::string& part) { return message.find(part) != std::string::npos; }

Json nemotron() {
  return {{"model_type", "nemotron_h"},  {"hidden_size", 64},        {"intermediate_size", 96},
          {"num_hidden_layers", 4},      {"vocab_size", 128},        {"num_attention_heads", 4},
          {"num_key_value_heads", 2},    {"head_dim", 16},           {"hybrid_override_pattern", "M-*M"},
          {"mamba_num_heads", 8},        {"mamba_head_dim", 16},     {"n_groups", 2},
          {"ssm_state_size", 16},        {"conv_kernel", 4},         {"time_step_min", 0.25},
          {"time_step_limit", {0.0, 1}}, {"mlp_hidden_act", "relu2"}};
}

Json mamba2() {
  return {{"model_type", "mamba2"}, {"hidden_size", 64}, {"num_hidden_layers", 2},
          {"vocab_size", 128},      {"num_heads", 8},    {"head_dim", 16},
          {"n_groups", 2},          {"state_size", 16},  {"expand", 2}};
}

Json granite() {
  return {{"model_type", "granitemoehybrid"},
          {"hidden_size", 64},
          {"num_hidden_layers", 2},
          {"vocab_size", 128},
          {"intermediate_size", 96},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"num_local_experts", 0},
          {"shared_intermediate_size", 80},
          {"mamba_n_heads", 8},
          {"mamba_d_state", 16},
          {"layer_types", {"mamba", "attention"}}};
}

TEST(StateSpaceConfig, KeysOfExpertsThatNemotronDoesNotHaveAreAccountedFor) {
  Json json = nemotron();
  json.update({{"n_routed_experts", 8},
               {"num_experts_per_tok", 2},
               {"norm_topk_prob", true},
               {"n_group", 1},
               {"topk_group", 1},
               {"routed_scaling_factor", 2.5},
               {"n_shared_experts", 1},
               {"moe_latent_size", 64},
               {"moe_intermediate_size", 96},
               {"moe_shared_expert_intermediate_size", 96}});
  EXPECT_TRUE(parse(json).unread.empty());
}

TEST(StateSpaceConfig, BlocksOfNemotronHaveOneBranchEach) {
  Json json = nemotron();
  for (const Json& types : {Json("M-*M"), Json({"linear_attention", "mlp", "full_attention", "linear_attention"}),
                            Json({"mamba", "mlp", "attention", "mamba"})}) {
    json.erase("hybrid_override_pattern");
    json.erase("layers_block_type");
    json[types.is_string() ? "hybrid_override_pattern" : "layers_block_type"] = types;
    const ModelConfig config = parse(json);
    ASSERT_EQ(config.kinds.size(), 4U);
    EXPECT_EQ(config.kinds[0].mixer, Mixer::state_space);
    EXPECT_FALSE(config.kinds[0].has_mlp);
    EXPECT_EQ(config.kinds[1].mixer, Mixer::none);
    EXPECT_TRUE(config.kinds[1].has_mlp);
    EXPECT_EQ(config.kinds[2].mixer, Mixer::attention);
    EXPECT_EQ(config.kinds[2].rope, -1);
  }
}

// Its steps are bounded by time_step_min, whatever time_step_limit says, as in transformers.
TEST(StateSpaceConfig, StepsOfNemotronAreBoundedByTheirMinimum) {
  const StateSpace space = parse(nemotron()).state_space;
  EXPECT_EQ(space.min_step, 0.25F);
  EXPECT_TRUE(std::isinf(space.max_step));
}

TEST(StateSpaceConfig, InfinityHasSeveralSpellings) {
  Json json = mamba2();
  for (const Json& infinity : {Json("Infinity"), Json({{"__float__", "Infinity"}}), Json(nullptr)}) {
    json["time_step_limit"] = {0.5, infinity};
    const StateSpace space = parse(json).state_space;
    EXPECT_EQ(space.min_step, 0.5F);
    EXPECT_TRUE(std::isinf(space.max_step));
  }
  json["time_step_limit"] = {0.5, 2};
  EXPECT_EQ(parse(json).state_space.max_step, 2);
  for (const Json& wrong : {Json({1, 0.5}), Json({0}), Json({0, "much"}), Json({-1, 1}), Json(3)}) {
    json["time_step_limit"] = wrong;
    EXPECT_TRUE(names(refusal<InputError>(json), "time_step_limit")) << wrong;
  }
}

TEST(StateSpaceConfig, GraniteWithoutExpertsHasOneMlp) {
  const ModelConfig config = parse(granite());
  EXPECT_EQ(config.intermediate, 80);
  EXPECT_FALSE(config.kinds[0].has_experts);
  EXPECT_EQ(config.state_space.head_dim, 16);
  EXPECT_EQ(config.kinds[1].mixer, Mixer::attention);
  EXPECT_EQ(config.kinds[1].rope, -1) << "positions are embedded where position_embedding_type says so";
}

TEST(StateSpaceConfig, SizesThatDoNotFitAreRefused) {
  const auto refuse = [](Json json, const char* key, Json value) {
    json[key] = std::move(value);
    return refusal<InputError>(json);
  };
  EXPECT_TRUE(names(refuse(mamba2(), "num_heads", 7), "num_heads"));
  EXPECT_TRUE(names(refuse(mamba2(), "n_groups", 3), "num_heads"));
  EXPECT_TRUE(names(refuse(mamba2(), "head_dim", 16777216), "num_heads"));
  EXPECT_TRUE(names(refuse(mamba2(), "expand", 1e9), "expand"));
  EXPECT_TRUE(names(refuse(mamba2(), "state_size", 16777216), "state_size"));
  EXPECT_TRUE(names(refuse(mamba2(), "conv_kernel", 1000), "conv_kernel"));
  EXPECT_TRUE(names(refuse(nemotron(), "hybrid_override_pattern", ""), "hybrid_override_pattern"));
  EXPECT_TRUE(names(refuse(granite(), "layer_types", {"mamba"}), "layer_types"));
}

TEST(StateSpaceConfig, WhatIsNotComputedIsRefusedByItsKey) {
  const auto refuse = [](Json json, const char* key, Json value) {
    json[key] = std::move(value);
    return refusal<UnsupportedError>(json);
  };
  EXPECT_TRUE(names(refuse(nemotron(), "hybrid_override_pattern", "M?*M"), "a block is '?'"));
  EXPECT_TRUE(names(refuse(nemotron(), "mamba_hidden_act", "relu"), "mamba_hidden_act"));
  Json latent = nemotron();
  latent.update({{"hybrid_override_pattern", "ME"},
                 {"n_routed_experts", 4},
                 {"num_experts_per_tok", 2},
                 {"moe_intermediate_size", 32}});
  EXPECT_TRUE(names(refuse(latent, "moe_latent_size", 16), "moe_latent_size"));
  EXPECT_TRUE(names(refuse(granite(), "layer_types", {"mamba", "sliding_attention"}), "layer_types"));
  EXPECT_TRUE(names(refuse(mamba2(), "model_type", "zamba2"), "share"));
}

}  // namespace
}  // namespace gptq
