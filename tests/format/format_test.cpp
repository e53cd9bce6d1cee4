// Formats: words and zeros as loaders expect them, configs, shapes and loaders.
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "base/error.h"
#include "format/huggingface.h"
#include "format/loaders.h"
#include "io/pack.h"
#include "recipe/recipe.h"
#include "recipe_helpers.h"

namespace gptq {
namespace {

using namespace testing_recipes;  // NOLINT: the helpers of these tests

// A quantized linear on a device: codes [out, in], grid [out, groups].
struct Sample {
  Matrix codes, scales, zeros;
  std::vector<int32_t> g_idx;
  int bits = 0;
};

Sample sample(Backend& backend, int bits, uint8_t zero) {
  const int64_t out = 32, in = 64, groups = 2;
  Sample quantized;
  quantized.bits = bits;
  std::vector<uint8_t> codes(out * in), zeros(out * groups, zero);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>((i * 7 + i / 64) & ((1U << bits) - 1));
  std::vector<float> scales(out * groups);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = 0.25F + static_cast<float>(i) / 128;
  quantized.codes = to_device(backend, DType::u8, out, in, codes.data());
  quantized.zeros = to_device(backend, DType::u8, out, groups, zeros.data());
  quantized.scales = to_device(backend, DType::f32, out, groups, scales.data());
  for (int32_t k = 0; k < in; ++k) quantized.g_idx.push_back(k / 32);
  return quantized;
}

FetchedLinear fetched_of(Backend& backend, const Sample& linear) {
  return fetch(backend, linear.codes, {linear.scales.view(), linear.zeros.view(), linear.bits}, linear.g_idx);
}

Recipe recipe_of(const std::string& format) {
  Recipe recipe;
  recipe.checkpoint_format = format;
  return recipe;
}

EncodedLinear encode(const FetchedLinear& linear, const Recipe& recipe) {
  return format_of(recipe).encode(linear, resolve(recipe));
}

std::vector<TensorSpec> tensors_of(const LinearSpec& linear, const Recipe& recipe) {
  return format_of(recipe).tensors(linear, resolve(recipe));
}

void check_format(const Recipe& recipe) { format_of(recipe).check(resolve(recipe)); }

Json config_of(const Recipe& recipe, const std::vector<std::string>& unquantized = {}) {
  return dynamic_cast<const HuggingFaceFormat&>(format_of(recipe)).config({recipe, {}, unquantized});
}

// The values of one tensor of a linear.
template <typename Values>
Values values_of(const EncodedLinear& packed, const std::string& part) {
  for (const EncodedTensor& tensor : packed) {
    if (tensor.part == part) return std::get<Values>(tensor.values);
  }
  ADD_FAILURE() << part;
  return {};
}
using Words = std::vector<uint32_t>;

Words zeros_of(Backend& backend, const Sample& quantized, const std::string& format) {
  return values_of<Words>(encode(fetched_of(backend, quantized), recipe_of(format)), "qzeros");
}

TEST(Format, SymmetricZerosAreTheWordsThatEveryLoaderKnows) {
  const auto backend = open_backend("cpu");
  const std::vector<std::pair<int, std::pair<uint32_t, uint32_t>>> words = {
      {2, {0x55555555U, 0xAAAAAAAAU}}, {4, {0x77777777U, 0x88888888U}}, {8, {0x7F7F7F7FU, 0x80808080U}}};
  for (const auto& [bits, expected] : words) {
    const Sample quantized = sample(*backend, bits, static_cast<uint8_t>(1U << (bits - 1)));
    for (const uint32_t word : zeros_of(*backend, quantized, "gptq")) EXPECT_EQ(word, expected.first);
    for (const uint32_t word : zeros_of(*backend, quantized, "gptq_v2")) EXPECT_EQ(word, expected.second);
  }
}

TEST(Format, ThreeBitZerosAreAStreamOfThrees) {
  const auto backend = open_backend("cpu");
  const Words v1 = zeros_of(*backend, sample(*backend, 3, 4), "gptq");
  EXPECT_EQ(unpack_cols(v1, 2, 32, 3), std::vector<uint8_t>(64, 3));
  EXPECT_EQ(v1[0], 0xDB6DB6DBU);  // 011 repeated, low bits first
}

TEST(Format, QweightIsTransposedAndScalesAreHalves) {
  const auto backend = open_backend("cpu");
  const Sample quantized = sample(*backend, 4, 8);
  const FetchedLinear fetched = fetched_of(*backend, quantized);
  const EncodedLinear packed = encode(fetched, recipe_of("gptq"));
  const auto qweight = values_of<std::span<const uint32_t>>(packed, "qweight");
  ASSERT_EQ(qweight.size(), 64U * 4 / 32 * 32);
  const std::vector<uint8_t> codes = to_host<uint8_t>(*backend, quantized.codes);
  // Word [1, 5] holds inputs 8..15 of output 5.
  for (int j = 0; j < 8; ++j) EXPECT_EQ((qweight[1 * 32 + 5] >> (4 * j)) & 15, codes[5 * 64 + 8 + j]);
  const std::vector<float> scales = to_host<float>(*backend, quantized.scales);
  EXPECT_EQ(values_of<std::vector<uint16_t>>(packed, "scales")[1 * 32 + 5], Half(scales[5 * 2 + 1]).bits);
}

TEST(Format, CompressedTensorsHasARowOfWordsForEachOutput) {
  const auto backend = open_backend("cpu");
  Sample quantized = sample(*backend, 4, 8);
  std::vector<uint8_t> codes(32 * 64, 8);  // the signed code 0
  for (int k = 0; k < 8; ++k) codes[3 * 64 + 8 + k] = static_cast<uint8_t>(k + 1);
  codes[3 * 64 + 63] = 15;
  quantized.codes = to_device(*backend, DType::u8, 32, 64, codes.data());
  const FetchedLinear fetched = fetched_of(*backend, quantized);
  const EncodedLinear packed = encode(fetched, recipe_of("compressed-tensors"));
  ASSERT_EQ(packed.size(), 3U) << "symmetric: no zero points";
  const Words words = values_of<Words>(packed, "weight_packed");
  ASSERT_EQ(words.size(), 32U * 8);
  EXPECT_EQ(words[0], 0x88888888U);
  EXPECT_EQ(words[3 * 8 + 1], 0x87654321U) << "inputs 8 to 15 of output 3, low bits first";
  EXPECT_EQ(words[3 * 8 + 7], 0xF8888888U);
  EXPECT_EQ(values_of<std::vector<int64_t>>(packed, "weight_shape"), (std::vector<int64_t>{32, 64}));
  // Scales as from the solver: 0.25 + i / 128 is exact in fp16.
  const auto scales = values_of<std::vector<uint16_t>>(packed, "weight_scale");
  ASSERT_EQ(scales.size(), 64U);
  EXPECT_EQ(scales[0], 0x3400U);           // 0.25
  EXPECT_EQ(scales[2 * 16], 0x3800U);      // output 16, group 0: 0.25 + 32 / 128 = 0.5
  EXPECT_EQ(scales[2 * 16 + 1], 0x3810U);  // its group 1: 0.5078125
}

TEST(Format, CompressedTensorsStoresZerosAsTheyAreDownTheOutputs) {
  const auto backend = open_backend("cpu");
  for (const int bits : {4, 8}) {
    Sample quantized = sample(*backend, bits, 0);
    std::vector<uint8_t> zeros(32 * 2, 0);  // [outputs, groups]
    for (int r = 0; r < 8; ++r) zeros[2 * (8 + r) + 1] = static_cast<uint8_t>(r + 1);
    zeros[2 * 31] = 15;
    quantized.zeros = to_device(*backend, DType::u8, 32, 2, zeros.data());
    Recipe recipe = recipe_of("compressed-tensors");
    recipe.bits = bits;
    recipe.sym = false;
    const FetchedLinear fetched = fetched_of(*backend, quantized);
    const Words words = values_of<Words>(encode(fetched, recipe), "weight_zero_point");
    // [32 * bits / 32, 2 groups]: group 1 of outputs 8 to 15, group 0 of output 31, and nothing else.
    Words expected(static_cast<size_t>(2 * bits));
    if (bits == 4) {
      expected[2 * 1 + 1] = 0x87654321U;
      expected[2 * 3 + 0] = 0xF0000000U;
    } else {
      expected[2 * 2 + 1] = 0x04030201U;
      expected[2 * 3 + 1] = 0x08070605U;
      expected[2 * 7 + 0] = 0x0F000000U;
    }
    EXPECT_EQ(words, expected) << bits;
  }
}

TEST(Format, CompressedTensorsIsGptqTransposed) {
  const auto backend = open_backend("cpu");
  for (const int bits : {4, 8}) {
    const FetchedLinear fetched = fetched_of(*backend, sample(*backend, bits, 3));
    Recipe v2 = recipe_of("gptq_v2"), other = recipe_of("compressed-tensors");
    v2.bits = other.bits = bits;
    v2.sym = other.sym = false;
    const EncodedLinear a = encode(fetched, v2), b = encode(fetched, other);
    const auto qweight = values_of<std::span<const uint32_t>>(a, "qweight");
    EXPECT_EQ(values_of<Words>(b, "weight_packed"), transposed<uint32_t>(qweight, 2 * bits, 32));
    EXPECT_EQ(values_of<Words>(b, "weight_zero_point"), transposed<uint32_t>(values_of<Words>(a, "qzeros"), 2, bits));
    EXPECT_EQ(values_of<std::vector<uint16_t>>(b, "weight_scale"),
              transposed<uint16_t>(values_of<std::vector<uint16_t>>(a, "scales"), 2, 32));
  }
}

TEST(Format, TensorsArePackedInTheOrderAndSizesThatWereAnnounced) {
  const auto backend = open_backend("cpu");
  for (const std::string& format : format_names()) {
    for (const bool sym : {true, false}) {
      Recipe recipe = recipe_of(format);
      recipe.group_size = 32;
      recipe.sym = sym;
      const auto specs = tensors_of({"l", 32, 64, false}, recipe);
      const FetchedLinear fetched = fetched_of(*backend, sample(*backend, 4, 8));
      const EncodedLinear packed = encode(fetched, recipe);
      ASSERT_EQ(packed.size(), specs.size());
      for (size_t i = 0; i < specs.size(); ++i) {
        EXPECT_EQ("l." + packed[i].part, specs[i].name);
        const size_t bytes =
            std::visit([](const auto& values) { return values.size() * sizeof(values[0]); }, packed[i].values);
        EXPECT_EQ(bytes, specs[i].bytes()) << specs[i].name;
      }
    }
  }
}

TEST(Format, SizesFollowFromShapeAndBits) {
  Recipe recipe;
  recipe.bits = 3;
  recipe.group_size = 64;
  const auto specs = tensors_of({"a.b", 96, 128, false}, recipe);
  ASSERT_EQ(specs.size(), 4U);
  EXPECT_EQ(specs[0].name, "a.b.qweight");
  EXPECT_EQ(specs[0].shape, (std::vector<int64_t>{12, 96}));
  EXPECT_EQ(specs[1].shape, (std::vector<int64_t>{2, 9}));
  EXPECT_EQ(specs[2].shape, (std::vector<int64_t>{2, 96}));
  EXPECT_EQ(specs[2].dtype, "F16");
  EXPECT_EQ(specs[3].shape, (std::vector<int64_t>{128}));
}

TEST(Format, RefusesShapesThatItCannotHold) {
  Recipe recipe;
  recipe.group_size = 128;
  EXPECT_EQ(message_of([&] { check_shape({"l", 64, 256, false}, resolve(recipe)); }), "");
  EXPECT_NE(message_of([&] {
              check_shape({"l", 64, 192, false}, resolve(recipe));
            }).find("does not divide the 192 inputs of l"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              check_shape({"l", 60, 256, false}, resolve(recipe));
            }).find("multiples of 8"),
            std::string::npos);
  recipe.bits = 3;
  EXPECT_NE(message_of([&] {
              check_shape({"l", 48, 256, false}, resolve(recipe));
            }).find("multiples of 32"),
            std::string::npos);
}

TEST(Format, OneConfigSaysWhatTheTensorsAre) {
  Recipe recipe;
  recipe.bits = 2;
  recipe.sym = false;
  const Json config = config_of(recipe);
  EXPECT_EQ(config["checkpoint_format"], "gptq_v2");
  EXPECT_EQ(config["format"], "gptq_v2");
  EXPECT_EQ(config["quant_method"], "gptq");
  EXPECT_EQ(config["desc_act"], false);
  const QuantizationConfig read = parse_quantization_config(config, "here");
  EXPECT_EQ(read.bits, 2);
  EXPECT_EQ(read.group_size, 128);
  EXPECT_FALSE(read.sym);
  EXPECT_EQ(read.format->name(), "gptq_v2");
}

TEST(Format, CompressedTensorsRefusesWhatItsLoadersCannotHave) {
  Recipe recipe = recipe_of("compressed-tensors");
  for (const int bits : {4, 8}) {
    recipe.bits = bits;
    EXPECT_EQ(message_of([&] { check_format(recipe); }), "") << bits;
  }
  for (const int bits : {2, 3}) {
    recipe.bits = bits;
    EXPECT_NE(message_of([&] { check_format(recipe); }).find(cat("`bits` ", bits)), std::string::npos);
  }
  recipe.bits = 4;
  recipe.desc_act = true;
  recipe.static_groups = false;
  EXPECT_NE(message_of([&] { check_format(recipe); }).find("`desc_act`"), std::string::npos);
  recipe.checkpoint_format = "gptq";
  recipe.bits = 3;
  EXPECT_EQ(message_of([&] { check_format(recipe); }), "");
}

TEST(Format, TheAutomaticOneHoldsTheZerosOfAllModules) {
  Recipe recipe;
  EXPECT_EQ(format_of(recipe).name(), "gptq");
  recipe.dynamic = {{.pattern = ".*v_proj", .sym = false}};
  EXPECT_EQ(format_of(recipe).name(), "gptq_v2") << "one module has zeros";
  recipe.dynamic.clear();
  recipe.sym = false;
  EXPECT_EQ(format_of(recipe).name(), "gptq_v2");
  recipe.checkpoint_format = "gptq";
  EXPECT_NE(message_of([&] { check_format(recipe); }).find("gptq_v2"), std::string::npos);
  recipe.checkpoint_format = "marlin";
  EXPECT_NE(message_of([&] { format_of(recipe); }).find("auto, compressed-tensors, gptq, gptq_v2"), std::string::npos);
}

TEST(Format, TheConfigOfCompressedTensorsNamesWhatStaysUnquantized) {
  Recipe recipe = recipe_of("compressed-tensors");
  recipe.bits = 8;
  recipe.sym = false;
  recipe.group_size = 64;
  Json config = config_of(recipe, {"model.layers.0.mlp.up_proj", "lm_head"});
  EXPECT_FALSE(dynamic_cast<const HuggingFaceFormat&>(format_of(recipe)).has_config_file());
  EXPECT_EQ(config["quant_method"], "compressed-tensors");
  EXPECT_EQ(config["format"], "pack-quantized");
  EXPECT_EQ(config["quantization_status"], "compressed");
  EXPECT_EQ(config["ignore"], Json({"model.layers.0.mlp.up_proj", "lm_head"}));
  const Json& group = config["config_groups"]["group_0"];
  EXPECT_EQ(group["targets"], Json::array({"Linear"}));
  EXPECT_EQ(group["weights"]["strategy"], "group");
  EXPECT_EQ(group["weights"]["group_size"], 64);
  QuantizationConfig read = parse_quantization_config(config, "here");
  EXPECT_EQ(read.bits, 8);
  EXPECT_EQ(read.group_size, 64);
  EXPECT_FALSE(read.sym);
  EXPECT_EQ(read.format->name(), "compressed-tensors");

  recipe.group_size = -1;
  config = config_of(recipe, {"lm_head"});
  EXPECT_EQ(config["config_groups"]["group_0"]["weights"]["strategy"], "channel");
  EXPECT_TRUE(config["config_groups"]["group_0"]["weights"]["group_size"].is_null());
  EXPECT_EQ(parse_quantization_config(config, "here").group_size, -1);
}

TEST(Format, CompressedTensorsConfigsThatMeanMoreAreRefused) {
  const Json good = config_of(recipe_of("compressed-tensors"), {"lm_head"});
  const auto refusal = [&](const std::function<void(Json&, Json&)>& change) {
    Json config = good;
    change(config, config["config_groups"]["group_0"]);
    const std::string message = message_of([&] { parse_quantization_config(config, "here"); });
    EXPECT_EQ(message.rfind("here: ", 0), 0U) << message;
    return message;
  };
  const auto says = [](const std::string& message, const std::string& word) {
    EXPECT_NE(message.find(word), std::string::npos) << message;
  };
  says(refusal([](Json& config, Json&) { config["format"] = "int-quantized"; }), "int-quantized");
  says(refusal([](Json& config, Json&) { config["format"] = 4; }), "'4' is not read");
  says(refusal([](Json& config, Json&) { config["kv_cache_scheme"] = {{"num_bits", 8}}; }), "kv_cache_scheme");
  says(refusal([](Json& config, Json&) {
         config["transform_config"] = {{"config_groups", {{"R1", 1}}}};
       }),
       "transform_config");
  says(refusal([](Json& config, Json&) {
         config["sparsity_config"] = {{"format", "sparse-24-bitmask"}};
       }),
       "sparsity_config");
  says(refusal([](Json& config, Json& group) {
         Json other = group;
         other["weights"]["type"] = "float";
         config["config_groups"]["group_1"] = other;
       }),
       "float");
  says(refusal([](Json& config, Json&) { config["config_groups"] = Json::object(); }), "config_groups");
  says(refusal([](Json& config, Json&) { config.erase("config_groups"); }), "config_groups");
  says(refusal([](Json& config, Json&) { config["config_groups"] = "W4A16"; }), "config_groups");
  says(refusal([](Json&, Json& group) { group["input_activations"] = {{"num_bits", 8}}; }), "input_activations");
  says(refusal([](Json&, Json& group) { group["weights"] = nullptr; }), "num_bits");
  says(refusal([](Json&, Json& group) { group["weights"]["num_bits"] = 3; }), "3 bits");
  says(refusal([](Json&, Json& group) { group["weights"]["type"] = "float"; }), "float");
  says(refusal([](Json&, Json& group) { group["weights"]["strategy"] = "tensor"; }), "tensor");
  says(refusal([](Json&, Json& group) { group["weights"]["group_size"] = 0; }), "group_size");
  says(refusal([](Json&, Json& group) { group["weights"]["actorder"] = "group"; }), "actorder");
  // Keys of other programs that change nothing.
  Json harmless = good;
  harmless["transform_config"] = Json::object();
  harmless["sparsity_config"] = Json::object();
  harmless["version"] = "0.20.0";
  harmless["config_groups"]["group_0"]["weights"]["actorder"] = "weight";
  EXPECT_EQ(parse_quantization_config(harmless, "here").bits, 4);
}

TEST(Format, RefusesConfigsOfOtherKinds) {
  EXPECT_NE(message_of([] {
              parse_quantization_config({{"quant_method", "awq"}, {"bits", 4}}, "here");
            }).find("awq"),
            std::string::npos);
  EXPECT_NE(message_of([] {
              parse_quantization_config({{"quant_method", "gptq"}}, "here");
            }).find("bits"),
            std::string::npos);
  EXPECT_NE(message_of([] {
              parse_quantization_config({{"bits", 4}, {"group_size", 128}, {"checkpoint_format", "marlin"}}, "here");
            }).find("marlin"),
            std::string::npos);
  for (const Json& format : {Json(16), Json::array(), Json::object()}) {
    EXPECT_NE(message_of([&] {
                parse_quantization_config({{"bits", 4}, {"group_size", 128}, {"checkpoint_format", format}}, "here");
              }).find("'" + format.dump() + "' is not read"),
              std::string::npos);
  }
  EXPECT_NE(message_of([] { parse_quantization_config(Json::array(), "here"); }).find("here"), std::string::npos);
}

TEST(Format, NumbersOfConfigsThatNoFolderHasAreRefused) {
  const auto refusal = [](const Json& config) {
    return message_of([&] { parse_quantization_config(config, "here"); });
  };
  const Json wrong[] = {0, -2, 17, 1e300, 1'000'000'000'000'000'000, 18'000'000'000'000'000'000ULL, 4.5, "4", nullptr};
  for (const Json& value : wrong) {
    const std::string bits = refusal({{"bits", value}, {"group_size", 128}});
    EXPECT_EQ(bits.rfind(cat("here: quantization_config says bits ", value.dump(), ","), 0), 0U) << bits;
    Json compressed = config_of(recipe_of("compressed-tensors"), {"lm_head"});
    compressed["config_groups"]["group_0"]["weights"]["num_bits"] = value;
    EXPECT_NE(refusal(compressed).find(cat("num_bits ", value.dump())), std::string::npos) << refusal(compressed);
    if (value == 0 || value == 17) continue;
    const std::string group = refusal({{"bits", 4}, {"group_size", value}});
    EXPECT_NE(group.find(cat("group_size ", value.dump())), std::string::npos) << group;
  }
  EXPECT_EQ(refusal({{"bits", 4}, {"group_size", -1}}), "");
}

std::vector<LoaderVerdict> verdicts_of(const QuantizationConfig& config, const std::vector<LinearSpec>& linears) {
  std::vector<StoredLinear> stored;
  for (const LinearSpec& linear : linears) stored.push_back({linear, config});
  return config.format->loaders(stored);
}

bool accepts(const std::vector<LoaderVerdict>& verdicts, const std::string& loader) {
  for (const LoaderVerdict& verdict : verdicts) {
    if (verdict.loader == loader) return verdict.accepts;
  }
  ADD_FAILURE() << loader;
  return false;
}

TEST(Loaders, FollowTheirRules) {
  const std::vector<LinearSpec> linears = {{"q", 256, 256, false}};
  const QuantizationConfig plain{.bits = 4, .group_size = 128, .format = &format_of({})};
  for (const char* loader : {"transformers + Optimum", "GPTQModel", "vLLM", "SGLang", "ExLlamaV2"}) {
    EXPECT_TRUE(accepts(verdicts_of(plain, linears), loader)) << loader;
  }
  QuantizationConfig other = plain;
  other.bits = 8;
  EXPECT_TRUE(accepts(verdicts_of(other, linears), "vLLM"));
  EXPECT_FALSE(accepts(verdicts_of(other, linears), "ExLlamaV2"));
  other.bits = 3;
  EXPECT_FALSE(accepts(verdicts_of(other, linears), "vLLM"));
  EXPECT_TRUE(accepts(verdicts_of(other, linears), "GPTQModel"));
  other = plain;
  other.desc_act = true;
  EXPECT_FALSE(accepts(verdicts_of(other, linears), "vLLM"));
  EXPECT_TRUE(accepts(verdicts_of(other, linears), "SGLang"));
  EXPECT_FALSE(accepts(verdicts_of(plain, {{"odd", 72, 256, false}}), "vLLM"));
}

TEST(Loaders, OfCompressedTensorsTakeZerosTooButGptqProgramsTakeNothing) {
  const std::vector<LinearSpec> linears = {{"q", 256, 256, false}};
  QuantizationConfig config{.bits = 4, .group_size = 128, .format = &format_of(recipe_of("compressed-tensors"))};
  for (const bool sym : {true, false}) {
    for (const int bits : {4, 8}) {
      config.sym = sym;
      config.bits = bits;
      const auto verdicts = verdicts_of(config, linears);
      for (const char* loader : {"transformers + compressed-tensors", "vLLM", "SGLang"})
        EXPECT_TRUE(accepts(verdicts, loader)) << loader;
      for (const char* loader : {"GPTQModel", "ExLlamaV2"}) EXPECT_FALSE(accepts(verdicts, loader)) << loader;
      EXPECT_EQ(verdicts[1].reason.empty(), sym || bits == 4) << "8 bits with zeros need a remark";
    }
  }
  config.group_size = 16;
  EXPECT_FALSE(accepts(verdicts_of(config, linears), "vLLM"));
  EXPECT_TRUE(accepts(verdicts_of(config, linears), "transformers + compressed-tensors"));
}

}  // namespace
}  // namespace gptq
