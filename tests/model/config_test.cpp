// config.json with old and new spellings, and every kind of invalid value.
#include <cmath>
#include <filesystem>
#include <tuple>

#include <gtest/gtest.h>

#include "base/error.h"
#include "model/architecture.h"
#include "model/config_accounting.h"
#include "tiny_model.h"

namespace gptq {
namespace {

Json changed(const std::string& key, Json value) {
  Json config = testing_model::tiny_config();
  config[key] = std::move(value);
  return config;
}

Json without(const std::string& key) {
  Json config = testing_model::tiny_config();
  config.erase(key);
  return config;
}

ModelConfig parse(const Json& config) { return parse_model_config(config, "some/folder"); }

Json with_rope(Json rope) { return changed("rope_scaling", std::move(rope)); }

// The message of the error of type E that parsing throws; it must name the file.
template <typename E = InputError>
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

TEST(Config, ReadsTheSizes) {
  const ModelConfig config = parse(testing_model::tiny_config());
  EXPECT_EQ(config.model_type, "llama");
  EXPECT_EQ(config.architecture, &architectures()[0]);
  EXPECT_EQ(config.hidden, 64);
  EXPECT_EQ(config.intermediate, 96);
  EXPECT_EQ(config.blocks, 2);
  EXPECT_EQ(config.heads, 4);
  EXPECT_EQ(config.kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.vocabulary, 128);
  EXPECT_EQ(config.max_positions, 256);
  EXPECT_FLOAT_EQ(config.norm_eps, 1e-5F);
  EXPECT_EQ(config.ropes[0].kind, RopeKind::standard);
  EXPECT_EQ(config.ropes[0].rotary_dim, 16);
}

TEST(Config, FillsInWhatTransformersFillsIn) {
  Json json = testing_model::tiny_config();
  for (const char* key : {"num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta", "hidden_act",
                          "attention_bias", "mlp_bias", "tie_word_embeddings"}) {
    json.erase(key);
  }
  json["head_dim"] = nullptr;
  json["hidden_size"] = 48;
  const ModelConfig config = parse(json);
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.head_dim, 12);
  EXPECT_EQ(config.max_positions, 2048);
  EXPECT_FLOAT_EQ(config.norm_eps, 1e-6F);
  EXPECT_EQ(config.ropes[0].theta, 10000);
  EXPECT_EQ(config.activation, Activation::silu);
  EXPECT_FALSE(config.q_bias);
  EXPECT_FALSE(config.mlp_bias);
  EXPECT_FALSE(config.tied_embeddings);
}

// As in google/gemma-3-4b-it, which has only the keys that differ from its family's defaults.
TEST(Config, ReadsTheInnerConfigOfAModelWithOtherTowers) {
  const Json inner = {{"hidden_size", 2560},         {"intermediate_size", 10240},
                      {"model_type", "gemma3_text"}, {"num_hidden_layers", 34},
                      {"sliding_window", 1024},      {"rope_scaling", {{"factor", 8.0}, {"rope_type", "linear"}}}};
  const ModelConfig config =
      parse({{"model_type", "gemma3"}, {"text_config", inner}, {"vision_config", Json::object()}});
  EXPECT_EQ(config.model_type, "gemma3_text");
  EXPECT_EQ(config.heads, 8);
  EXPECT_EQ(config.kv_heads, 4);
  EXPECT_EQ(config.head_dim, 256);
  EXPECT_EQ(config.vocabulary, 262208);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(config.activation, Activation::gelu_tanh);
  ASSERT_EQ(config.ropes.size(), 2U);
  EXPECT_EQ(config.ropes[0].kind, RopeKind::linear);
  EXPECT_EQ(config.ropes[0].theta, 1e6);
  EXPECT_EQ(config.ropes[1].theta, 10000);
  EXPECT_EQ(config.kinds[4].window, 1024);
  EXPECT_EQ(config.kinds[4].rope, 1);
  EXPECT_EQ(config.kinds[5].window, 0);
  EXPECT_EQ(config.kinds[5].rope, 0);
}

TEST(Config, KnowsTheActivations) {
  EXPECT_EQ(parse(changed("hidden_act", "swish")).activation, Activation::silu);
  EXPECT_EQ(parse(changed("hidden_act", "gelu")).activation, Activation::gelu);
  EXPECT_EQ(parse(changed("hidden_act", "gelu_new")).activation, Activation::gelu_tanh);
  EXPECT_EQ(parse(changed("hidden_act", "gelu_pytorch_tanh")).activation, Activation::gelu_tanh);
  EXPECT_EQ(parse(changed("hidden_act", "relu")).activation, Activation::relu);
  const std::string message = refusal<UnsupportedError>(changed("hidden_act", "mish"));
  EXPECT_TRUE(names(message, "mish") && names(message, "silu")) << message;
}

TEST(Config, OldAndNewSpellingOfRopeMeanTheSame) {
  const Json values = {
      {"factor", 8.0}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0}, {"original_max_position_embeddings", 64}};
  Json with_type = values, with_rope_type = values, with_theta = values;
  with_type["type"] = "llama3";
  with_rope_type["rope_type"] = "llama3";
  with_theta["rope_type"] = "llama3";
  with_theta["rope_theta"] = 500.0;
  Json oldest = changed("rope_theta", 500.0), old = oldest, newest = without("rope_theta");
  oldest["rope_scaling"] = with_type;
  old["rope_scaling"] = with_rope_type;
  newest["rope_parameters"] = with_theta;
  for (const Json& config : {oldest, old, newest}) {
    const Rope rope = parse(config).ropes[0];
    EXPECT_EQ(rope.kind, RopeKind::llama3);
    EXPECT_EQ(rope.theta, 500);
    EXPECT_EQ(rope.factor, 8);
    EXPECT_EQ(rope.original_positions, 64);
    EXPECT_EQ(rope.max_positions, 256);
  }
}

TEST(Config, RopeScalingWinsOverRopeParametersUnlessItIsEmpty) {
  Json config = with_rope({{"type", "linear"}, {"factor", 3.0}});
  config["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 5.0}, {"rope_theta", 77.0}};
  EXPECT_EQ(parse(config).ropes[0].factor, 3);
  EXPECT_EQ(parse(config).ropes[0].theta, 10000);
  for (const Json& nothing : {Json(nullptr), Json::object()}) {
    config["rope_scaling"] = nothing;
    EXPECT_EQ(parse(config).ropes[0].factor, 5);
    EXPECT_EQ(parse(config).ropes[0].theta, 77);
  }
}

TEST(Config, TheOuterOriginalLengthWinsOverTheInner) {
  Json config = with_rope({{"type", "yarn"}, {"factor", 2.0}, {"original_max_position_embeddings", 40}});
  EXPECT_EQ(parse(config).ropes[0].original_positions, 40);
  config["original_max_position_embeddings"] = 20;
  EXPECT_EQ(parse(config).ropes[0].original_positions, 20);
}

TEST(Config, AFactorThatIsMissingFollowsFromTheLengths) {
  const Json rope = {{"type", "yarn"}, {"factor", nullptr}, {"original_max_position_embeddings", 64}};
  EXPECT_EQ(parse(with_rope(rope)).ropes[0].factor, 4);
}

TEST(Config, AnUnknownFamilyListsTheKnownOnes) {
  const std::string message = refusal<UnsupportedError>(changed("model_type", "llamba"));
  EXPECT_TRUE(names(message, "llamba") && names(message, "llama")) << message;
}

TEST(Config, AnUnknownRopeTypeListsTheKnownOnes) {
  const std::string message = refusal<UnsupportedError>(with_rope({{"rope_type", "spiral"}, {"factor", 2}}));
  EXPECT_TRUE(names(message, "spiral") && names(message, "yarn") && names(message, "rope_scaling")) << message;
}

TEST(Config, PartialRotationIsRefusedExceptForTheDefaultKindWhichIgnoresIt) {
  Json config = with_rope({{"type", "linear"}, {"factor", 2.0}, {"partial_rotary_factor", 0.5}});
  EXPECT_TRUE(names(refusal<UnsupportedError>(config), "partial_rotary_factor"));
  config["rope_scaling"].erase("partial_rotary_factor");
  config["partial_rotary_factor"] = 0.5;
  EXPECT_TRUE(names(refusal<UnsupportedError>(config), "partial_rotary_factor"));
  config["rope_scaling"] = nullptr;
  EXPECT_EQ(parse(config).ropes[0].rotary_dim, 16);
}

TEST(Config, EverySizeMustBeAPositiveWholeNumber) {
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings"}) {
    for (const Json& value : {Json(0), Json(-4), Json(2.5), Json("64"), Json(true), Json(Json::array({64})),
                              Json(5'000'000'000), Json(18'000'000'000'000'000'000ULL)}) {
      const std::string message = refusal(changed(key, value));
      EXPECT_TRUE(names(message, key) && names(message, value.dump())) << message;
    }
  }
}

TEST(Config, MessagesShowTheStartOfALongValue) {
  const std::string message = refusal(changed("hidden_size", Json(std::vector<int>(100'000, 7))));
  EXPECT_TRUE(names(message, "'hidden_size' is [7,7,7,")) << message.substr(0, 300);
  EXPECT_LT(message.size(), 300U);
}

TEST(Config, NeededKeysMustBeThere) {
  for (const char* key :
       {"model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"}) {
    EXPECT_TRUE(names(refusal(without(key)), key));
  }
}

TEST(Config, WrongKindsOfValuesAreRefused) {
  const std::pair<const char*, Json> cases[] = {
      {"model_type", 3},   {"hidden_act", 1},          {"rms_norm_eps", "small"},
      {"rms_norm_eps", 0}, {"rms_norm_eps", -1e-5},    {"rope_theta", 0},
      {"rope_theta", 1},   {"rope_theta", "10000"},    {"attention_bias", "true"},
      {"mlp_bias", 1},     {"tie_word_embeddings", 0}, {"rope_scaling", "linear"},
      {"rope_scaling", 4}, {"head_dim", 15},           {"num_hidden_layers", 20'000}};
  for (const auto& [key, value] : cases) EXPECT_TRUE(names(refusal(changed(key, value)), key)) << key << value;
  EXPECT_THROW(parse(Json::array({1})), InputError);
}

TEST(Config, HeadsMustBeAMultipleOfKeyValueHeads) {
  EXPECT_TRUE(names(refusal(changed("num_key_value_heads", 3)), "num_key_value_heads"));
  EXPECT_TRUE(names(refusal(changed("num_key_value_heads", 8)), "num_key_value_heads"));
}

TEST(Config, HeadsMustDivideTheHiddenSizeWithoutAHeadDim) {
  Json config = without("head_dim");
  config["hidden_size"] = 66;
  EXPECT_TRUE(names(refusal(config), "head_dim"));
}

TEST(Config, SenselessRopeValuesAreRefused) {
  const Json numbers = {1, 1, 1, 1, 1, 1, 1, 1}, few = {1, 1, 1}, bad = {1, 1, 1, 1, 0, 1, 1, 1};
  const auto longrope = [&](const Json& short_factor, const Json& long_factor) {
    return Json{{"type", "longrope"},
                {"short_factor", short_factor},
                {"long_factor", long_factor},
                {"original_max_position_embeddings", 64}};
  };
  EXPECT_NO_THROW(parse(with_rope(longrope(numbers, numbers))));
  const std::pair<const char*, Json> cases[] = {
      {"factor", {{"type", "linear"}}},
      {"factor", {{"type", "dynamic"}}},
      {"factor", {{"type", "llama3"}}},
      {"factor", {{"type", "linear"}, {"factor", 0}}},
      {"factor", {{"type", "yarn"}, {"factor", "2"}}},
      {"rope_theta", {{"type", "yarn"}, {"factor", 2}, {"rope_theta", 1}}},
      {"truncate", {{"type", "yarn"}, {"factor", 2}, {"truncate", 1}}},
      {"beta_fast", {{"type", "yarn"}, {"factor", 2}, {"beta_fast", -1}}},
      {"attention_factor", {{"type", "yarn"}, {"factor", 2}, {"attention_factor", -0.5}}},
      {"original_max_position_embeddings", {{"type", "yarn"}, {"original_max_position_embeddings", 0}}},
      {"high_freq_factor", {{"type", "llama3"}, {"factor", 2}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}},
      {"short_factor", longrope(few, numbers)},
      {"short_factor", longrope(nullptr, numbers)},
      {"long_factor", longrope(numbers, bad)},
      {"type", {{"type", 7}}}};
  for (const auto& [key, rope] : cases) EXPECT_TRUE(names(refusal(with_rope(rope)), key)) << key << rope;
  Json one = longrope(numbers, numbers);
  one["original_max_position_embeddings"] = 1;
  EXPECT_TRUE(names(refusal(with_rope(one)), "original_max_position_embeddings"));
  Json narrow = with_rope({{"type", "dynamic"}, {"factor", 2}});
  narrow["head_dim"] = 2;
  EXPECT_TRUE(names(refusal(narrow), "head_dim"));
}

// A family's config.json with these keys changed.
Json of_family(const std::string& family, const Json& changes) {
  Json config = testing_model::tiny_config();
  config["model_type"] = family;
  config.update(changes);
  return config;
}

TEST(Config, SizesBeyondThoseOfAnyModelAreRefusedBeforeAnythingIsMadeByThem) {
  const std::tuple<const char*, Json, const char*> cases[] = {
      {"bloom", {{"num_attention_heads", nullptr}, {"n_head", 1'000'000'000}}, "'n_head' is 1000000000"},
      {"bloom", {{"hidden_size", 1'000'000'000}}, "'hidden_size' is 1000000000"},
      {"llama", {{"num_attention_heads", 65'537}}, "'num_attention_heads' is 65537"},
      {"llama", {{"num_attention_heads", 65'536}, {"head_dim", 65'536}}, "'num_attention_heads' is 65536"},
      {"llama", {{"head_dim", 16'777'218}}, "'head_dim' is 16777218"},
      {"llama", {{"num_hidden_layers", 10'001}}, "'num_hidden_layers' is 10001"},
      {"llama", {{"vocab_size", 2'147'483'648}}, "'vocab_size' is 2147483648"},
      {"llama", {{"max_position_embeddings", 2'147'483'648}}, "'max_position_embeddings' is 2147483648"},
      {"mistral", {{"sliding_window", 9'000'000'000'000'000'000}}, "'sliding_window' is 9000000000000000000"},
      {"mixtral",
       {{"num_local_experts", 1'000'000'000}, {"num_experts_per_tok", 2}},
       "'num_local_experts' is 1000000000"},
      {"mpt", {{"d_model", 64}, {"expansion_ratio", 1e30}}, "'expansion_ratio' is 1e+30"},
      {"mpt", {{"d_model", 64}, {"expansion_ratio", 1e-9}}, "'expansion_ratio' is 1e-09"},
      {"qwen2_moe",
       {{"num_experts", 4},
        {"num_experts_per_tok", 2},
        {"moe_intermediate_size", 64},
        {"shared_expert_intermediate_size", 99'999'999}},
       "'shared_expert_intermediate_size' is 99999999"},
      {"qwen2",
       {{"use_sliding_window", true}, {"sliding_window", 64}, {"max_window_layers", 18'000'000'000'000'000'000ULL}},
       "'max_window_layers' is 18000000000000000000"}};
  for (const auto& [family, changes, part] : cases) {
    const std::string message = refusal(of_family(family, changes));
    EXPECT_TRUE(names(message, part)) << message;
  }
}

TEST(Config, SharedExpertsMayNotOverflowTogether) {
  Json config = of_family("deepseek_v2", {{"n_routed_experts", 4},
                                          {"num_experts_per_tok", 2},
                                          {"moe_intermediate_size", 16'000'000},
                                          {"n_shared_experts", 2},
                                          {"kv_lora_rank", 16},
                                          {"qk_nope_head_dim", 16},
                                          {"qk_rope_head_dim", 16},
                                          {"v_head_dim", 16}});
  EXPECT_TRUE(names(refusal(config), "32000000 features"));
  config["n_shared_experts"] = -1;
  EXPECT_TRUE(names(refusal(config), "-16000000 features"));
  config["n_shared_experts"] = 1;
  EXPECT_NO_THROW(parse(config));
  config["num_attention_heads"] = config["num_key_value_heads"] = 65'536;
  config["hidden_size"] = 65'536;
  EXPECT_NO_THROW(parse(config));
  config["v_head_dim"] = config["qk_nope_head_dim"] = 16'384;
  EXPECT_TRUE(names(refusal(config), "'num_attention_heads' is 65536")) << "all heads together";
}

TEST(Config, NumbersThatAreNotFiniteInSinglePrecisionAreRefused) {
  const std::pair<const char*, Json> cases[] = {{"rms_norm_eps", 1e308},
                                                {"rms_norm_eps", 2},
                                                {"rms_norm_eps", 1e-60},
                                                {"rope_theta", 1e308},
                                                {"rope_theta", -1e308}};
  for (const auto& [key, value] : cases) EXPECT_TRUE(names(refusal(changed(key, value)), key)) << key << value;
  const Json huge(8, 1e308), tiny(8, 1e-308), ones(8, 1.0);
  const auto longrope = [](const Json& short_factor, const Json& long_factor) {
    return with_rope({{"type", "longrope"},
                      {"short_factor", short_factor},
                      {"long_factor", long_factor},
                      {"original_max_position_embeddings", 64}});
  };
  EXPECT_TRUE(names(refusal(longrope(huge, ones)), "short_factor"));
  EXPECT_TRUE(names(refusal(longrope(ones, tiny)), "long_factor"));
  EXPECT_TRUE(names(refusal(with_rope({{"type", "linear"}, {"factor", 1e308}})), "factor"));
  EXPECT_TRUE(names(refusal(with_rope({{"type", "yarn"}, {"factor", 4}, {"mscale", 1}, {"mscale_all_dim", 1e300}})),
                    "mscale_all_dim"));
  EXPECT_NO_THROW(parse(changed("rope_theta", 1e20)));
}

// Each number is possible, but not what follows from them.
TEST(Config, NumbersThatTogetherAreNotFiniteAreRefused) {
  const Json rope = {{"type", "yarn"}, {"factor", std::exp(1.0)}, {"mscale", 1}, {"mscale_all_dim", -10}};
  EXPECT_TRUE(names(refusal(with_rope(rope)), "not finite"));
  Json config = of_family("minicpm", {{"scale_emb", 1e30}, {"scale_depth", 1e30}, {"dim_model_base", 64}});
  EXPECT_NO_THROW(parse(config));
  config = of_family("hunyuan_v1_dense",
                     {{"head_dim", 4}, {"rope_scaling", {{"type", "dynamic"}, {"factor", 1}, {"alpha", 1e30}}}});
  EXPECT_TRUE(names(refusal(config), "not finite"));
}

TEST(Config, ListsOfKindsMustCoverTheBlocks) {
  const auto gpt_neo = [](const char* key, Json value) {
    Json config = {
        {"model_type", "gpt_neo"}, {"hidden_size", 48}, {"num_heads", 6}, {"num_layers", 4}, {"vocab_size", 66}};
    config[key] = std::move(value);
    return config;
  };
  const auto kinds = [&](const Json& config) {
    std::string text;
    for (const BlockKind& kind : parse(config).kinds) text += kind.window > 0 ? "l" : "g";
    return text;
  };
  EXPECT_EQ(kinds(gpt_neo("attention_types", {{{"global", "local"}, 2}})), "glgl");
  EXPECT_EQ(kinds(gpt_neo("attention_types", Json::array({{{"global"}, 3}, {{"local"}, 1}}))), "gggl");
  EXPECT_EQ(kinds(gpt_neo("attention_layers", {"local", "local", "local", "global"})), "lllg");
  EXPECT_EQ(kinds(gpt_neo("attention_layers", nullptr)), "glgl");
  const Json wrong[] = {Json::array({Json::array({Json::array(), INT64_MAX})}),
                        Json::array({{{"global"}, INT64_MAX}}),
                        Json::array({{{"global"}, 18'000'000'000'000'000'000ULL}}),
                        Json::array({{{"global"}, -1}}),
                        Json::array({{{"global"}, 2.5}}),
                        Json::array({{{"global"}, 5}}),
                        Json::array({{{"global"}, 3}}),
                        Json::array({{{"global", 7}, 2}}),
                        Json::array({{"global", 4}}),
                        Json::array({4}),
                        Json::array(),
                        "global",
                        7};
  for (const Json& value : wrong)
    EXPECT_TRUE(names(refusal(gpt_neo("attention_types", value)), "attention_types")) << value;
  for (const Json& value :
       {Json::array({1, 2, 3, 4}), Json::array({"global", "local", "far", "local"}), Json::array({"global"})})
    EXPECT_TRUE(names(refusal(gpt_neo("attention_layers", value)), "attention_layers")) << value;
}

// As in transformers, which masks nothing then.
TEST(Config, AttentionToLaterTokensIsRefusedByItsKey) {
  for (const auto& [key, value] : {std::pair<const char*, Json>{"use_bidirectional_attention", true},
                                   {"use_bidirectional_attention", "all"},
                                   {"is_causal", false}}) {
    EXPECT_TRUE(names(refusal<UnsupportedError>(changed(key, value)), key));
    Json wrapper = {{"model_type", "llava"}, {"text_config", changed(key, value)}};
    EXPECT_TRUE(names(refusal<UnsupportedError>(wrapper), key));
    wrapper = {{"model_type", "llava"}, {"text_config", testing_model::tiny_config()}};
    wrapper[key] = value;
    EXPECT_TRUE(names(refusal<UnsupportedError>(wrapper), key));
  }
  EXPECT_TRUE(parse(changed("use_bidirectional_attention", false)).unread.empty());
  EXPECT_TRUE(parse(changed("is_causal", true)).unread.empty());
  EXPECT_TRUE(parse(changed("is_decoder", false)).unread.empty()) << "no decoder of transformers reads it";
  const Json paligemma = {{"model_type", "paligemma"}, {"text_config", testing_model::tiny_config()}};
  EXPECT_TRUE(names(refusal<UnsupportedError>(paligemma), "paligemma"));
}

// The message of refuse_unread().
std::string unread(const Json& config, const std::string& ignored = "") {
  try {
    refuse_unread(parse(config), ignored, "some/folder/config.json");
  } catch (const UnsupportedError& error) {
    return error.what();
  }
  return "";
}

TEST(ConfigKeys, AnUnknownKeyThatMayChangeTheComputationIsNamed) {
  for (const auto& [key, value] : {std::pair<const char*, Json>{"attn_temperature", 0.5},
                                   {"residual_multiplier", 0.2},
                                   {"num_kv_shared_layers", 2},
                                   {"logit_softcap", 30},
                                   {"use_headwise_gate", true},
                                   {"layer_types", {"full_attention", "linear_attention"}},
                                   {"attention_kind", "sparse"}}) {
    const std::string message = unread(changed(key, value));
    EXPECT_TRUE(names(message, key)) << key << ": " << message;
    EXPECT_TRUE(names(message, "ignore_config_keys")) << message;
    EXPECT_TRUE(names(message, "some/folder/config.json")) << message;
    EXPECT_EQ(unread(changed(key, value), cat("other,", key)), "");
  }
  EXPECT_TRUE(
      names(unread(with_rope({{"rope_type", "linear"}, {"factor", 2.0}, {"ntk_beta", 3}})), "rope_scaling.ntk_beta"));
  const Json inner = changed("residual_multiplier", 0.2);
  EXPECT_TRUE(names(unread({{"model_type", "llava"}, {"text_config", inner}}), "residual_multiplier"));
}

TEST(ConfigKeys, KeysWithoutAnEffectAndValuesThatSwitchNothingOnPass) {
  for (const auto& [key, value] : {std::pair<const char*, Json>{"bos_token_id", 1},
                                   {"attention_dropout", 0.1},
                                   {"id2label", {{"0", "a"}}},
                                   {"auto_map", {{"AutoModel", "x.y"}}},
                                   {"attn_temperature", nullptr},
                                   {"use_headwise_gate", false},
                                   {"kind", ""},
                                   {"layer_types", {"full_attention", "full_attention"}},
                                   {"unsloth_version", "2026.1"},
                                   {"time_step_limit", {0.0, 1.0}}})
    EXPECT_EQ(unread(changed(key, value)), "") << key;
  EXPECT_EQ(unread({{"model_type", "llava"}, {"text_config", testing_model::tiny_config()}, {"projector", 3}}), "")
      << "keys of the other towers";
}

TEST(ConfigKeys, NoGoldenFolderHasAnUnreadKey) {
  for (const char* set : {"models", "families"}) {
    for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(GPTQ_GOLDEN) / set)) {
      if (!entry.is_directory()) continue;
      const ModelConfig config = parse_model_config(Checkpoint(entry.path()));
      EXPECT_TRUE(config.unread.empty()) << entry.path() << ": " << config.unread.front();
    }
  }
}

TEST(Config, AnInnerConfigHasTheDefaultsOfItsFamily) {
  const ModelConfig config = parse({{"model_type", "llava"},
                                    {"text_config", {{"model_type", "llama"}, {"vocab_size", 32064}}},
                                    {"vision_config", Json::object()}});
  EXPECT_EQ(config.hidden, 4096);
  EXPECT_EQ(config.intermediate, 11008);
  EXPECT_EQ(config.blocks, 32);
  EXPECT_EQ(config.heads, 32);
  EXPECT_EQ(config.kv_heads, 32);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_TRUE(names(refusal(without("num_hidden_layers")), "num_hidden_layers")) << "others have none";
}

TEST(Config, ARouterOfAnotherKindIsRefused) {
  Json json = testing_model::tiny_config();
  json.update({{"model_type", "mixtral"}, {"num_local_experts", 4}, {"num_experts_per_tok", 2}});
  json["scoring_func"] = "sigmoid";
  EXPECT_TRUE(names(refusal<UnsupportedError>(json), "scoring_func"));
  json["scoring_func"] = "softmax";
  EXPECT_TRUE(parse(json).unread.empty());
}

}  // namespace
}  // namespace gptq
