// The checkpoint format: words and zeros as loaders expect them, configs, shapes and who loads what.
#include "quant/format.h"

#include <gtest/gtest.h>

#include "quant/loaders.h"
#include "quant/pack.h"
#include "quant/recipe.h"

namespace gptq {
namespace {

Quantized sample(Backend& backend, int bits, uint8_t zero) {
  const int64_t out = 32, in = 64, groups = 2;
  Quantized quantized;
  quantized.bits = bits;
  quantized.group_size = 32;
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

TEST(Format, SymmetricZerosAreTheWordsThatEveryLoaderKnows) {
  const auto backend = open_backend("cpu");
  const std::vector<std::pair<int, std::pair<uint32_t, uint32_t>>> words = {
      {2, {0x55555555U, 0xAAAAAAAAU}}, {4, {0x77777777U, 0x88888888U}}, {8, {0x7F7F7F7FU, 0x80808080U}}};
  for (const auto& [bits, expected] : words) {
    const Quantized quantized = sample(*backend, bits, static_cast<uint8_t>(1U << (bits - 1)));
    for (const uint32_t word : pack(fetch(*backend, quantized), CheckpointFormat::gptq).qzeros)
      EXPECT_EQ(word, expected.first);
    for (const uint32_t word : pack(fetch(*backend, quantized), CheckpointFormat::gptq_v2).qzeros)
      EXPECT_EQ(word, expected.second);
  }
}

TEST(Format, ThreeBitZerosAreAStreamOfThrees) {
  const auto backend = open_backend("cpu");
  const std::vector<uint32_t> v1 = pack(fetch(*backend, sample(*backend, 3, 4)), CheckpointFormat::gptq).qzeros;
  EXPECT_EQ(unpack_cols(v1, 2, 32, 3), std::vector<uint8_t>(64, 3));
  EXPECT_EQ(v1[0], 0xDB6DB6DBU);  // 011 repeated, low bits first
}

TEST(Format, QweightIsTransposedAndScalesAreHalves) {
  const auto backend = open_backend("cpu");
  const Quantized quantized = sample(*backend, 4, 8);
  const FetchedLinear fetched = fetch(*backend, quantized);
  const PackedLinear packed = pack(fetched, CheckpointFormat::gptq);
  ASSERT_EQ(packed.qweight.size(), 64U * 4 / 32 * 32);
  const std::vector<uint8_t> codes = to_host<uint8_t>(*backend, quantized.codes);
  // Word [1, 5] holds inputs 8..15 of output 5.
  for (int j = 0; j < 8; ++j) EXPECT_EQ((packed.qweight[1 * 32 + 5] >> (4 * j)) & 15, codes[5 * 64 + 8 + j]);
  const std::vector<float> scales = to_host<float>(*backend, quantized.scales);
  EXPECT_EQ(packed.scales[1 * 32 + 5], Half(scales[5 * 2 + 1]).bits);
}

TEST(Format, SizesFollowFromShapeAndBits) {
  Recipe recipe;
  recipe.bits = 3;
  recipe.group_size = 64;
  const auto specs = quantized_tensors({"a.b", 96, 128, false}, recipe);
  ASSERT_EQ(specs.size(), 4U);
  EXPECT_EQ(specs[0].name, "a.b.qweight");
  EXPECT_EQ(specs[0].shape, (std::vector<int64_t>{12, 96}));
  EXPECT_EQ(specs[1].shape, (std::vector<int64_t>{2, 9}));
  EXPECT_EQ(specs[2].shape, (std::vector<int64_t>{2, 96}));
  EXPECT_EQ(specs[2].dtype, "F16");
  EXPECT_EQ(specs[3].shape, (std::vector<int64_t>{128}));
}

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

TEST(Format, RefusesShapesThatItCannotHold) {
  Recipe recipe;
  EXPECT_EQ(message_of([&] { check_shape({"l", 64, 256, false}, recipe); }), "");
  EXPECT_NE(message_of([&] {
              check_shape({"l", 64, 192, false}, recipe);
            }).find("does not divide the 192 inputs of l"),
            std::string::npos);
  EXPECT_NE(message_of([&] { check_shape({"l", 60, 256, false}, recipe); }).find("multiples of 8"), std::string::npos);
  recipe.bits = 3;
  EXPECT_NE(message_of([&] { check_shape({"l", 48, 256, false}, recipe); }).find("multiples of 32"), std::string::npos);
}

TEST(Format, OneConfigSaysWhatTheTensorsAre) {
  Recipe recipe;
  recipe.bits = 2;
  recipe.sym = false;
  const Json config = quantization_config(recipe);
  EXPECT_EQ(config["checkpoint_format"], "gptq_v2");
  EXPECT_EQ(config["format"], "gptq_v2");
  EXPECT_EQ(config["quant_method"], "gptq");
  EXPECT_EQ(config["desc_act"], false);
  const QuantizationConfig read = parse_quantization_config(config, "here");
  EXPECT_EQ(read.bits, 2);
  EXPECT_EQ(read.group_size, 128);
  EXPECT_FALSE(read.sym);
  EXPECT_EQ(read.format, CheckpointFormat::gptq_v2);
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
  EXPECT_NE(message_of([] { parse_quantization_config(Json::array(), "here"); }).find("here"), std::string::npos);
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
  const QuantizationConfig plain{.bits = 4, .group_size = 128};
  for (const char* loader : {"transformers + GPTQModel", "vLLM", "SGLang", "ExLlamaV2"}) {
    EXPECT_TRUE(accepts(loader_verdicts(plain, linears), loader)) << loader;
  }
  QuantizationConfig other = plain;
  other.bits = 8;
  EXPECT_TRUE(accepts(loader_verdicts(other, linears), "vLLM"));
  EXPECT_FALSE(accepts(loader_verdicts(other, linears), "ExLlamaV2"));
  other.bits = 3;
  EXPECT_FALSE(accepts(loader_verdicts(other, linears), "vLLM"));
  EXPECT_TRUE(accepts(loader_verdicts(other, linears), "transformers + GPTQModel"));
  other = plain;
  other.desc_act = true;
  EXPECT_FALSE(accepts(loader_verdicts(other, linears), "vLLM"));
  EXPECT_TRUE(accepts(loader_verdicts(other, linears), "SGLang"));
  EXPECT_FALSE(accepts(loader_verdicts(plain, {{"odd", 72, 256, false}}), "vLLM"));
}

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
  EXPECT_TRUE(refused([](Recipe& r) {
    r.sym = false;
    r.checkpoint_format = CheckpointFormat::gptq;
  }));
  EXPECT_THROW(recipe_preset("fast"), InputError);
  for (const char* preset : {"default", "paper", "group-aware"})
    EXPECT_NO_THROW(validate(recipe_preset(preset))) << preset;
}

}  // namespace
}  // namespace gptq
