// Checkpoints with FP8 weights, and with tensors that no layer uses.
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/error.h"
#include "format/format.h"
#include "gptq/gptq.h"
#include "plan/layout.h"
#include "run/rehearse.h"
#include "tiny_model.h"

namespace gptq {
namespace {

using namespace testing_model;  // NOLINT: helpers of the fixture

constexpr TinyOptions kSizes{.hidden = 160, .intermediate = 96};

struct Stored {
  TensorSpec spec;
  std::string bytes;
};

void write_stored(const fs::path& folder, const Json& config, const std::vector<Stored>& tensors) {
  fs::create_directories(folder);
  write_file(folder / "config.json", config.dump(2));
  std::vector<TensorSpec> specs;
  for (const Stored& tensor : tensors) specs.push_back(tensor.spec);
  SafetensorsWriter writer(folder / "model.safetensors", specs);
  for (const Stored& tensor : tensors) writer.write(tensor.spec.name, tensor.bytes.data(), tensor.bytes.size());
  writer.finish();
}

// A tensor in bf16.
Stored in_bf16(const TensorSpec& like, const std::vector<float>& values) {
  Stored stored{{like.name, "BF16", like.shape}, {}};
  for (const float value : values) {
    const Bf16 rounded(value);
    stored.bytes.append(reinterpret_cast<const char*>(&rounded), sizeof rounded);
  }
  return stored;
}

// A tensor that no model of transformers has, with a dtype without arithmetic.
Stored extra(const std::string& name, const std::string& dtype, std::vector<int64_t> shape) {
  Stored stored{{name, dtype, std::move(shape)}, {}};
  for (size_t i = 0; i < stored.spec.bytes(); ++i) stored.bytes += static_cast<char>(i % 120);
  return stored;
}

class Checkpoints : public testing::Test {
 protected:
  Checkpoints() { write_ids(folder_ / "ids.jsonl", 8, 40); }

  Job job(const std::string& model, const std::string& output) const {
    Job job{.model = folder_ / model, .output = folder_ / output, .threads = 1};
    job.calibration = {.file = folder_ / "ids.jsonl", .samples = 8, .sequence_length = 40};
    job.recipe.group_size = 32;
    return job;
  }
  Evaluation evaluation(const std::string& model) const {
    return {.model = folder_ / model, .texts = {folder_ / "ids.jsonl"}, .context = 40, .threads = 1};
  }

  // In any order.
  void expect_same_tensors(const std::string& a, const std::string& b) const {
    const Checkpoint first(folder_ / a), second(folder_ / b);
    EXPECT_EQ(first.tensors().size(), second.tensors().size());
    for (const StoredTensor* tensor : first.tensors()) {
      const StoredTensor& other = second.tensor(tensor->name, tensor->shape);
      EXPECT_EQ(tensor->dtype, other.dtype) << tensor->name;
      EXPECT_TRUE(bytes_of(first, tensor->name) == bytes_of(second, tensor->name)) << tensor->name;
    }
  }

  // The same random weights as "fp8" with block scales and as "bf16".
  void write_pair(int64_t block, bool with_nan = false) const {
    std::mt19937 random(3);
    std::vector<Stored> fp8, bf16;
    std::vector<TinyTensor> tensors = tiny_tensors(kSizes);
    // A multi-token prediction layer, as DeepSeek-V3 has after its last block.
    tensors.push_back({{"model.layers.2.eh_proj.weight", "F32", {96, 160}}, {}});
    for (const TinyTensor& tensor : tensors) {
      if (!tensor.spec.name.ends_with("_proj.weight")) {
        fp8.push_back(in_bf16(tensor.spec, tensor.values));
        bf16.push_back(fp8.back());
        continue;
      }
      const int64_t rows = tensor.spec.shape[0], cols = tensor.spec.shape[1];
      const int64_t scale_rows = (rows + block - 1) / block, scale_cols = (cols + block - 1) / block;
      std::vector<float> scales(scale_rows * scale_cols), values;
      for (float& scale : scales) scale = 0.001F + 1e-6F * static_cast<float>(random() % 1000);
      Stored codes{{tensor.spec.name, "F8_E4M3", tensor.spec.shape}, {}};
      for (int64_t i = 0; i < rows * cols; ++i) {
        // Random signs, exponents (also subnormal) and mantissas.
        const auto exponent = static_cast<int>(random() % 15), mantissa = static_cast<int>(random() % 8),
                   sign = static_cast<int>(random() % 2);
        const float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                          : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
        codes.bytes += static_cast<char>(sign << 7 | exponent << 3 | mantissa);
        values.push_back((sign == 0 ? value : -value) * scales[i / cols / block * scale_cols + i % cols / block]);
      }
      if (with_nan && tensor.spec.name == "model.layers.1.mlp.up_proj.weight") codes.bytes[77] = '\x7f';
      fp8.push_back(codes);
      bf16.push_back(in_bf16(tensor.spec, values));
      fp8.push_back({{tensor.spec.name + "_scale_inv", "F32", {scale_rows, scale_cols}},
                     {reinterpret_cast<const char*>(scales.data()), 4 * scales.size()}});
    }
    Json config = tiny_config(kSizes);
    write_stored(folder_ / "bf16", config, bf16);
    config["quantization_config"] = {{"quant_method", "fp8"},
                                     {"fmt", "e4m3"},
                                     {"activation_scheme", "dynamic"},
                                     {"weight_block_size", {block, block}}};
    write_stored(folder_ / "fp8", config, fp8);
  }

  TemporaryFolder folder_;
};

TEST_F(Checkpoints, InFp8AreWhatTheyStandForInBf16) {
  for (const int64_t block : {128, 32}) {
    write_pair(block);
    const Comparison comparison = compare(evaluation("fp8"), folder_ / "bf16").front();
    EXPECT_EQ(comparison.same_top, 1);
    EXPECT_EQ(comparison.model.perplexity, comparison.quantized.perplexity);
    EXPECT_NEAR(comparison.mean_kl, 0, 1e-9);
    quantize(job("fp8", "from-fp8"));
    quantize(job("bf16", "from-bf16"));
    expect_same_tensors("from-fp8", "from-bf16");
    EXPECT_EQ(read_file(folder_ / "from-fp8" / "config.json"), read_file(folder_ / "from-bf16" / "config.json"));
    for (const char* folder : {"fp8", "bf16", "from-fp8", "from-bf16"}) fs::remove_all(folder_ / folder);
  }
}

TEST_F(Checkpoints, InFp8LeaveWhatIsNotQuantizedInBf16) {
  write_pair(32);
  Job attention = job("fp8", "out");
  attention.recipe.modules_in_block_to_quantize = {{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}};
  const Plan planned = plan(attention);
  const Report report = quantize(attention);
  EXPECT_EQ(report.output_bytes, planned.output_bytes);
  EXPECT_EQ(report.source_bytes, static_cast<int64_t>(Checkpoint(folder_ / "fp8").bytes()));
  const Checkpoint plain(folder_ / "bf16"), out(folder_ / "out");
  EXPECT_EQ(out.quantization_config().at("quant_method"), "gptq");
  EXPECT_FALSE(out.quantization_config().contains("weight_block_size"));
  for (const StoredTensor* tensor : out.tensors())
    EXPECT_EQ(tensor->name.find("weight_scale_inv"), std::string::npos) << tensor->name;
  for (const std::string name : {"model.layers.0.self_attn.o_proj.weight", "model.layers.1.mlp.down_proj.weight",
                                 "model.layers.2.eh_proj.weight", "lm_head.weight"}) {
    EXPECT_EQ(out.tensor(name).dtype, "BF16") << name;
    EXPECT_TRUE(bytes_of(out, name) == bytes_of(plain, name)) << name;
  }
}

TEST_F(Checkpoints, InFp8ArePlannedAsTheBf16ThatTheyBecome) {
  write_pair(128);
  const Plan fp8 = plan(job("fp8", "out")), bf16 = plan(job("bf16", "out"));
  EXPECT_EQ(fp8.output_bytes, bf16.output_bytes);
  EXPECT_LT(fp8.source_bytes, bf16.source_bytes);
  const auto peaks_of = [&](const std::string& model) {
    Job planned = job(model, "out");
    const gptq::Setup setup = set_up(planned);
    return rehearse(planned, setup, {}).peaks;
  };
  EXPECT_EQ(peaks_of("fp8"), peaks_of("bf16"));
}

TEST_F(Checkpoints, InFp8AreInspectedAsTheyAreStored) {
  write_pair(128);
  const Inspection fp8 = inspect(folder_ / "fp8"), bf16 = inspect(folder_ / "bf16");
  EXPECT_EQ(fp8.checkpoint_format, "");
  EXPECT_EQ(fp8.parameters, bf16.parameters);
  ASSERT_EQ(fp8.modules.size(), bf16.modules.size());
  for (size_t i = 0; i < fp8.modules.size(); ++i) {
    const bool is_linear = fp8.modules[i].name.ends_with("_proj.weight");
    EXPECT_EQ(fp8.modules[i].dtype, is_linear ? "F8_E4M3" : "BF16") << fp8.modules[i].name;
  }
}

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST_F(Checkpoints, InFp8WithNaNAreRefusedByName) {
  write_pair(32, true);
  const std::string message = refusal([&] { quantize(job("fp8", "out")); });
  EXPECT_NE(message.find("NaN or infinity at 1 places of tensor 'model.layers.1.mlp.up_proj.weight'"),
            std::string::npos)
      << message;
}

TEST_F(Checkpoints, QuantizedByOthersAreRefusedWithTheWayOut) {
  std::vector<TinyTensor> tensors = tiny_tensors();
  tensors.push_back({{"model.layers.0.mlp.up_proj.weight_packed", "I32", {1, 1}}, {0}});
  write_model(folder_ / "model", tiny_config(), tensors);
  for (const auto& [method, way] :
       std::map<std::string, std::string>{{"awq", "give the unquantized model, or add `from_quantized`"},
                                          {"hqq", "give the unquantized model"},
                                          {"bitsandbytes", "give the unquantized model"},
                                          {"compressed-tensors", "the unquantized model"}}) {
    Json config = tiny_config();
    config["quantization_config"] = {{"quant_method", method}};
    write_file(folder_ / "model" / "config.json", config.dump());
    const std::string message = refusal([&] { quantize(job("model", "out")); });
    EXPECT_NE(message.find(way), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

// Two readers of one file: the output format's, of codes for evaluation, and the source's, of weights.
TEST_F(Checkpoints, OfEveryFormatAreReadAsWhatTheirCodesStandFor) {
  write_tiny_model(folder_ / "model", kSizes);
  const auto cpu = open_backend("cpu");
  const auto expect_same_weights = [&](const fs::path& folder) {
    const Checkpoint codes(folder);
    Checkpoint weights(folder);
    const QuantizationConfig config = parse_quantization_config(codes.quantization_config(), "config.json");
    weights.dequantize(false);
    int compared = 0;
    for (const StoredTensor* tensor : weights.tensors()) {
      if (codes.has(tensor->name)) continue;
      const std::string name = tensor->name.substr(0, tensor->name.rfind(".weight"));
      const LinearSpec spec{.name = name, .out_features = tensor->shape[0], .in_features = tensor->shape[1]};
      const Matrix read = weights.load(*tensor);
      const Matrix expected = config.format->read(codes, spec, config).dequantized(*cpu, read.dtype());
      EXPECT_EQ(to_host<uint16_t>(*cpu, read), to_host<uint16_t>(*cpu, expected)) << name;
      ++compared;
    }
    EXPECT_EQ(compared, 14) << "all linears of two blocks";
  };
  for (const std::string format : {"gptq", "gptq_v2", "compressed-tensors"}) {
    for (const int bits : {2, 3, 4, 8}) {
      for (const bool sym : {true, false}) {
        if ((format == "compressed-tensors" && bits < 4) || (format == "gptq" && !sym)) continue;
        SCOPED_TRACE(cat(format, ", ", bits, " bits, sym ", sym));
        Job quantizing = job("model", "out");
        quantizing.overwrite = true;
        quantizing.recipe.checkpoint_format = format;
        quantizing.recipe.bits = bits;
        quantizing.recipe.sym = sym;
        quantizing.recipe.desc_act = bits != 4 && format != "compressed-tensors";
        quantizing.recipe.static_groups = !quantizing.recipe.desc_act;
        quantize(quantizing);
        expect_same_weights(folder_ / "out");
      }
    }
  }
}

// Optimum takes all linears of a block for quantized ones, unless their names are given.
TEST_F(Checkpoints, WithLinearsThatAreNeverQuantizedNameTheOthers) {
  write_ids(folder_ / "ids.jsonl", 8, 40, 66);
  const auto named = [&](const std::string& family) {
    Job quantizing = job("", "out");
    quantizing.model = fs::path(GPTQ_GOLDEN) / "families" / family;
    quantizing.overwrite = true;
    quantizing.recipe.group_size = -1;
    quantize(quantizing);
    const Checkpoint written(folder_ / "out");
    return written.config()["quantization_config"].value("modules_in_block_to_quantize", Json());
  };
  EXPECT_TRUE(named("qwen3").is_null());
  EXPECT_TRUE(named("lfm2").is_null()) << "blocks differ, but all of their linears are quantized";
  EXPECT_EQ(named("falcon_mamba"), Json::parse(R"([["mixer.in_proj"], ["mixer.out_proj"]])"));
  EXPECT_EQ(named("qwen3_5_text"), Json::parse(R"([
      ["linear_attn.in_proj_qkv", "linear_attn.in_proj_z"], ["linear_attn.out_proj"],
      ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"],
      ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"]])"));
}

// Checks that tensors of the checkpoint are copied to the output byte for byte.
void expect_carried_over(const fs::path& from, const fs::path& to, const std::vector<Stored>& extras) {
  const Checkpoint source(from), out(to);
  for (const Stored& tensor : extras) {
    ASSERT_TRUE(out.has(tensor.spec.name)) << tensor.spec.name;
    EXPECT_EQ(out.tensor(tensor.spec.name).dtype, tensor.spec.dtype) << tensor.spec.name;
    EXPECT_EQ(out.tensor(tensor.spec.name).shape, tensor.spec.shape) << tensor.spec.name;
    EXPECT_EQ(bytes_of(out, tensor.spec.name), tensor.bytes) << tensor.spec.name;
  }
}

TEST_F(Checkpoints, WithTensorsThatNoLayerUsesKeepThem) {
  TinyOptions sizes;
  sizes.tied = true;  // although its head is stored
  std::vector<Stored> tensors;
  std::vector<float> embedding;
  for (const TinyTensor& tensor : tiny_tensors(sizes)) {
    tensors.push_back(in_bf16(tensor.spec, tensor.values));
    if (tensor.spec.name == "model.embed_tokens.weight") embedding = tensor.values;
  }
  const std::vector<Stored> extras = {in_bf16({"lm_head.weight", "BF16", {128, 64}}, embedding),
                                      extra("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {8}),
                                      extra("model.layers.1.attn.bias", "U8", {1, 1, 16, 16}),
                                      extra("model.layers.1.attn.masked_bias", "F32", {}),
                                      extra("model.layers.2.eh_proj.weight", "BF16", {64, 128}),
                                      extra("model.layers.2.self_attn.q_proj.weight", "BF16", {64, 64}),
                                      extra("vision_tower.patches", "F8_E5M2", {3, 5}),
                                      extra("counts", "I64", {3})};
  write_stored(folder_ / "plain", tiny_config(sizes), tensors);
  tensors.insert(tensors.begin() + 3, extras.begin(), extras.end());
  write_stored(folder_ / "model", tiny_config(sizes), tensors);
  quantize(job("model", "out"));
  quantize(job("plain", "plain-out"));
  expect_carried_over(folder_ / "model", folder_ / "out", extras);
  const Checkpoint plain(folder_ / "plain-out"), out(folder_ / "out");
  EXPECT_EQ(out.tensors().size(), plain.tensors().size() + extras.size());
  for (const StoredTensor* tensor : plain.tensors())
    EXPECT_TRUE(bytes_of(out, tensor->name) == bytes_of(plain, tensor->name)) << tensor->name;
  EXPECT_EQ(perplexity(evaluation("out")).front().perplexity, perplexity(evaluation("plain-out")).front().perplexity);
}

TEST_F(Checkpoints, InShardsGiveTheSameAsInOneFile) {
  write_tiny_model(folder_ / "whole");
  const std::vector<TinyTensor> tensors = tiny_tensors();
  fs::create_directories(folder_ / "shards");
  write_file(folder_ / "shards" / "config.json", tiny_config().dump(2));
  for (const char* file : {"generation_config.json", "LICENSE"})
    fs::copy_file(folder_ / "whole" / file, folder_ / "shards" / file);
  // Keeps the order of tensors; the index omits one of its shard.
  Json map = Json::object();
  const size_t cut = 7;
  for (int shard = 0; shard < 2; ++shard) {
    const std::string name = cat("model-0000", shard + 1, "-of-00002.safetensors");
    const size_t first = shard == 0 ? 0 : cut, end = shard == 0 ? cut : tensors.size();
    std::vector<TensorSpec> specs;
    for (size_t i = first; i < end; ++i) specs.push_back(tensors[i].spec);
    SafetensorsWriter writer(folder_ / "shards" / name, specs);
    for (size_t i = first; i < end; ++i) {
      writer.write(tensors[i].spec.name, tensors[i].values.data(), tensors[i].spec.bytes());
      if (i != 3) map[tensors[i].spec.name] = name;
    }
    writer.finish();
  }
  write_file(folder_ / "shards" / "model.safetensors.index.json", Json{{"weight_map", map}}.dump());
  quantize(job("whole", "from-whole"));
  quantize(job("shards", "from-shards"));
  EXPECT_TRUE(contents(folder_ / "from-whole") == contents(folder_ / "from-shards"));
}

}  // namespace
}  // namespace gptq
