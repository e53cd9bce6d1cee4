// config.json of families whose blocks differ: in norms, sizes, what they have, or who their experts are for.
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/architecture.h"
#include "model/specs.h"
#include "tiny_model.h"

namespace gptq {
namespace {

// The sizes of the tiny Llama as another family.
Json tiny(const std::string& model_type, const Json& changes = Json::object()) {
  Json config = testing_model::tiny_config();
  config["model_type"] = model_type;
  config.erase("num_key_value_heads");
  config.update(changes);
  return config;
}

ModelConfig parse(const Json& config) { return parse_model_config(config, "some/folder"); }

// The message of the error that parsing throws.
std::string refusal(const Json& config) {
  try {
    parse(config);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A block of Nemotron-NAS, with or without attention and MLP.
Json nas_block(bool attends, bool has_mlp) {
  return {{"attention", {{"no_op", !attends}, {"n_heads_in_group", 2}, {"replace_with_linear", false}}},
          {"ffn", {{"no_op", !has_mlp}, {"ffn_mult", 6.5}}}};
}

Json openelm(const Json& changes = Json::object()) {
  Json config = {{"model_type", "openelm"},     {"model_dim", 64},           {"head_dim", 16},
                 {"vocab_size", 128},           {"num_query_heads", {4, 6}}, {"num_kv_heads", {2, 3}},
                 {"ffn_multipliers", {1, 2.9}}, {"ffn_dim_divisor", 32},     {"num_transformer_layers", 2}};
  config.update(changes);
  return config;
}

TEST(BlockConfig, OlmoHybridHasNoRopeWhereItIsNull) {
  const auto rope_of = [](const Json& changes) { return parse(tiny("olmo_hybrid", changes)).kinds.back().rope; };
  EXPECT_EQ(rope_of({{"rope_parameters", nullptr}}), -1);
  EXPECT_EQ(rope_of({{"rope_parameters", {{"rope_type", nullptr}}}}), -1);
  EXPECT_EQ(rope_of({{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}}}}), 0);
  EXPECT_EQ(rope_of(Json::object()), 0);
}

TEST(BlockConfig, OlmoHybridDerivesTheSizesOfTheDeltaRule) {
  const ModelConfig config = parse(tiny("olmo_hybrid", {{"linear_allow_neg_eigval", false}}));
  EXPECT_EQ(config.delta.shape.key_heads, 4);
  EXPECT_EQ(config.delta.shape.key_dim, 12);  // three quarters of 64 / 4
  EXPECT_EQ(config.delta.shape.value_dim, 24);
  EXPECT_EQ(config.delta.beta_scale, 1);
  EXPECT_EQ(config.kinds[0].mixer, Mixer::delta_rule);
  EXPECT_EQ(config.kinds[1].mixer, Mixer::attention);  // at least the last one
}

TEST(BlockConfig, OfExpertsForTextAndImagesThoseForTextAreRead) {
  const Json flat = {{"moe_num_experts", {8, 8}},         {"moe_k", 2},
                     {"moe_intermediate_size", {48, 16}}, {"moe_num_shared_experts", 2},
                     {"moe_layer_start_index", {1, 1}},   {"moe_layer_end_index", {1, 0}}};
  const ModelConfig config = parse(tiny("ernie4_5_moe_vl", flat));
  EXPECT_EQ(config.experts.count, 8);
  EXPECT_EQ(config.experts.intermediate, 48);
  EXPECT_EQ(config.experts.shared_intermediate, 96);
  EXPECT_FALSE(config.kinds[0].has_experts);
  EXPECT_TRUE(config.kinds[1].has_experts);
  EXPECT_TRUE(config.unread.empty()) << config.unread.front();
  Json three = tiny("ernie4_5_moe_vl", flat);
  three["moe_num_experts"] = {8, 8, 8};
  EXPECT_NE(refusal(three).find("moe_num_experts"), std::string::npos);
}

TEST(BlockConfig, BlocksThatDoNothingAreLeftOut) {
  const Json changes = {
      {"num_hidden_layers", 4},
      {"intermediate_size", nullptr},
      {"block_configs",
       {nas_block(true, true), nas_block(false, false), nas_block(false, true), nas_block(true, false)}}};
  const ModelConfig config = parse(tiny("nemotron-nas", changes));
  ASSERT_EQ(config.blocks, 3);
  EXPECT_EQ(config.places, (std::vector<int64_t>{0, 2, 3}));
  EXPECT_EQ(config.kinds[0].kv_heads, 2);
  EXPECT_EQ(config.kinds[0].intermediate, 512);  // 2 * 6.5 * 64 / 3, up to a multiple of 256
  EXPECT_EQ(config.kinds[1].mixer, Mixer::none);
  EXPECT_FALSE(config.kinds[2].has_mlp);
}

TEST(BlockConfig, OpenElmGivesEachBlockItsSizes) {
  const ModelConfig config = parse(openelm());
  EXPECT_EQ(config.kinds[0].heads, 4);
  EXPECT_EQ(config.kinds[1].kv_heads, 3);
  EXPECT_EQ(config.kinds[0].intermediate, 64);
  EXPECT_EQ(config.kinds[1].intermediate, 192);  // 185.6, to the nearest multiple of 32
  EXPECT_EQ(step_specs(config, 1)[0][0].out_features, (6 + 3 + 3) * 16);
}

TEST(BlockConfig, WhatIsNotComputedIsRefusedByItsName) {
  Json linear = nas_block(true, true), window = nas_block(true, true);
  linear["attention"]["replace_with_linear"] = true;
  window["attention"]["window_length"] = 64;
  const auto nas = [](const Json& first) {
    return tiny("nemotron-nas", {{"block_configs", {first, nas_block(true, true)}}});
  };
  const auto gemma = [](const char* key, const Json& value) {
    Json config = tiny("gemma3n_text", {{"num_kv_shared_layers", 0}});
    config[key] = value;
    return config;
  };
  EXPECT_EQ(refusal(gemma("laurel_rank", 8)), "");
  const std::pair<Json, const char*> cases[] = {
      {nas(linear), "replace_with_linear"},
      {nas(window), "window_length"},
      {nas(Json::object()), "attention"},
      {nas(Json(3)), "block_configs"},
      {tiny("nemotron-nas"), "block_configs"},
      {openelm({{"num_kv_heads", {2, 4}}}), "num_query_heads"},
      {openelm({{"num_query_heads", 4}}), "num_query_heads"},
      {openelm({{"ffn_multipliers", {1, -2}}}), "ffn_multipliers"},
      {openelm({{"ffn_multipliers", {1e300, 1}}}), "ffn_multipliers"},
      {openelm({{"ffn_with_glu", false}}), "ffn_with_glu"},
      {gemma("altup_active_idx", 1), "altup_active_idx"},
      {gemma("altup_num_inputs", 1), "altup_num_inputs"},
      {gemma("altup_num_inputs", 1000), "altup_num_inputs"},
      {gemma("activation_sparsity_pattern", {0.5, 1.5}), "activation_sparsity_pattern"},
      {gemma("activation_sparsity_pattern", {0.5}), "activation_sparsity_pattern"},
      {gemma("intermediate_size", {32, 48, 64}), "intermediate_size"},
      {gemma("num_kv_shared_layers", 2), "num_kv_shared_layers"}};
  for (const auto& [config, key] : cases) {
    const std::string message = refusal(config);
    EXPECT_NE(message.find(key), std::string::npos) << key << ": " << message;
  }
}

}  // namespace
}  // namespace gptq
