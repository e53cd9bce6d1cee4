// Whole jobs on a tiny random model: their outputs, and independence of how they are run.
#include <cmath>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/error.h"
#include "data/calibration.h"
#include "format/format.h"
#include "gptq/gptq.h"
#include "io/child.h"
#include "io/pack.h"
#include "plan/layout.h"
#include "quant/paper.h"
#include "run/block.h"
#include "tiny_model.h"

namespace gptq {
namespace {

using namespace testing_model;  // NOLINT: helpers of the fixture

class Quantize : public testing::Test {
 protected:
  void SetUp() override {
    write_tiny_model(folder_ / "model");
    write_ids(folder_ / "ids.jsonl", 12, 40);
  }
  Job job(const std::string& output) const {
    Job job{.model = folder_ / "model", .output = folder_ / output, .threads = 1};
    job.calibration = {.file = folder_ / "ids.jsonl", .samples = 12, .sequence_length = 40};
    job.recipe.group_size = 32;
    return job;
  }
  double perplexity_of(const std::string& name) const {
    return perplexity({.model = folder_ / name, .texts = {folder_ / "ids.jsonl"}, .context = 40, .threads = 1})
        .front()
        .perplexity;
  }
  TemporaryFolder folder_;
};

// The warnings of an evaluation of a folder.
std::vector<std::string> warnings_of(const std::string& model, const std::string& ids) {
  std::vector<std::string> warnings;
  const Listener listener{.on_message = [&](Level level, const std::string& text) {
    if (level == Level::warning) warnings.push_back(text);
  }};
  perplexity({.model = model, .texts = {ids}, .context = 40, .threads = 1}, listener);
  return warnings;
}

TEST_F(Quantize, AHeadThatDiffersFromATiedEmbeddingIsUntiedInTheOutput) {
  Json config = tiny_config();
  config["tie_word_embeddings"] = true;
  write_model(folder_ / "model", config, tiny_tensors());
  Job unchecked = job("out");
  unchecked.final_check = false;  // it warns of random weights
  const Report report = quantize(unchecked);
  ASSERT_EQ(report.warnings.size(), 1U);
  EXPECT_NE(report.warnings[0].find("'lm_head.weight'"), std::string::npos) << report.warnings[0];
  EXPECT_EQ(warnings_of(folder_ / "model", folder_ / "ids.jsonl").size(), 1U);
  EXPECT_EQ(read_json(folder_ / "out" / "config.json").at("tie_word_embeddings"), false);
  EXPECT_TRUE(warnings_of(folder_ / "out", folder_ / "ids.jsonl").empty());
  EXPECT_NEAR(perplexity_of("out") / perplexity_of("model"), 1, 0.2);
}

TEST_F(Quantize, BlocksAreQuantizedWithoutAHead) {
  std::vector<TinyTensor> tensors = tiny_tensors();
  ASSERT_EQ(tensors.back().spec.name, "lm_head.weight");
  tensors.pop_back();
  write_model(folder_ / "model", tiny_config(), tensors);
  const Report report = quantize(job("out"));
  EXPECT_EQ(report.linears.size(), 14U);
  ASSERT_EQ(report.warnings.size(), 1U);
  EXPECT_NE(report.warnings[0].find("no output head"), std::string::npos) << report.warnings[0];
  for (const char* name : {"model", "out"}) {
    try {
      perplexity_of(name);
      ADD_FAILURE() << name;
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find("tie_word_embeddings"), std::string::npos) << error.what();
    }
  }
}

TEST_F(Quantize, AKeyThatNothingReadsEndsAJobUnlessItIsIgnored) {
  Json config = tiny_config();
  config["attn_temperature"] = 0.5;
  write_model(folder_ / "model", config, tiny_tensors());
  Job asked = job("out");
  try {
    quantize(asked);
    ADD_FAILURE() << "quantized";
  } catch (const UnsupportedError& error) {
    EXPECT_NE(std::string(error.what()).find("attn_temperature: 0.5"), std::string::npos) << error.what();
  }
  const std::vector<std::string> told = inspect(folder_ / "model").warnings;
  ASSERT_EQ(told.size(), 1U);
  EXPECT_NE(told[0].find("attn_temperature"), std::string::npos) << told[0];
  asked.ignore_config_keys = "other,attn_temperature";
  EXPECT_EQ(quantize(asked).linears.size(), 14U);
}

TEST_F(Quantize, WritesAFolderThatHoldsTheFormat) {
  const Report report = quantize(job("out"));
  const Checkpoint source(folder_ / "model"), out(folder_ / "out");
  EXPECT_EQ(report.linears.size(), 14U);
  EXPECT_EQ(read_json(folder_ / "out" / "quantize_config.json"), out.config().at("quantization_config"));
  Json config = out.config();
  config.erase("quantization_config");
  EXPECT_EQ(config, source.config());
  for (const char* file : {"generation_config.json", "LICENSE"}) {
    EXPECT_EQ(read_file(folder_ / "out" / file), read_file(folder_ / "model" / file)) << file;
  }
  for (const StoredTensor* tensor : source.tensors()) {
    if (tensor->name.ends_with("_proj.weight")) {
      const std::string module = tensor->name.substr(0, tensor->name.size() - 7);
      EXPECT_FALSE(out.has(tensor->name));
      const int64_t rows = tensor->shape[0], cols = tensor->shape[1];
      EXPECT_EQ(out.tensor(module + ".qweight").shape, (std::vector<int64_t>{cols / 8, rows}));
      EXPECT_EQ(out.tensor(module + ".qzeros").shape, (std::vector<int64_t>{cols / 32, rows / 8}));
      EXPECT_EQ(out.tensor(module + ".scales").shape, (std::vector<int64_t>{cols / 32, rows}));
      EXPECT_EQ(out.tensor(module + ".g_idx").shape, (std::vector<int64_t>{cols}));
    } else {
      EXPECT_EQ(out.tensor(tensor->name).dtype, tensor->dtype);
      EXPECT_EQ(bytes_of(out, tensor->name), bytes_of(source, tensor->name));
    }
  }
}

TEST_F(Quantize, GivesTheSameBytesEveryTimeAndForAnyNumberOfThreads) {
  quantize(job("first"));
  quantize(job("second"));
  Job many = job("threads");
  many.threads = 3;
  quantize(many);
  EXPECT_EQ(contents(folder_ / "first"), contents(folder_ / "second"));
  EXPECT_EQ(contents(folder_ / "first"), contents(folder_ / "threads"));
}

TEST_F(Quantize, EightBitsChangeNextToNothingAndFewerBitsMore) {
  const double plain = perplexity_of("model");
  for (const int bits : {8, 4, 3, 2}) {
    Job bits_job = job(std::to_string(bits));
    bits_job.recipe.bits = bits;
    quantize(bits_job);
  }
  EXPECT_NEAR(perplexity_of("8") / plain, 1, 0.01);
  const Evaluation evaluation{
      .model = folder_ / "model", .texts = {folder_ / "ids.jsonl"}, .context = 40, .threads = 1};
  double last = 0;
  for (const char* name : {"8", "4", "3", "2"}) {
    const Comparison comparison = compare(evaluation, folder_ / name).front();
    EXPECT_GT(comparison.mean_kl, last) << name << " bits";
    EXPECT_LE(comparison.same_top, 1);
    last = comparison.mean_kl;
  }
  const Comparison itself = compare(evaluation, folder_ / "model").front();
  EXPECT_NEAR(itself.mean_kl, 0, 1e-6);
  EXPECT_EQ(itself.same_top, 1);
  EXPECT_EQ(itself.model.perplexity, plain);
}

TEST_F(Quantize, TheFirstStepOfThePaperPresetHasThePapersCodes) {
  Job paper = job("paper");
  paper.recipe = recipe_preset("paper");
  paper.recipe.group_size = 32;
  quantize(paper);

  // The first step's inputs are norms of embeddings, computed here in double.
  const Checkpoint source(folder_ / "model"), out(folder_ / "paper");
  const Matrix embedding = source.load(source.tensor("model.embed_tokens.weight"));
  const Matrix norm = source.load(source.tensor("model.layers.0.input_layernorm.weight"));
  const int64_t n = 64;
  std::vector<double> H(n * n);
  for (const TokenSequence& sequence : read_calibration({paper.calibration.file, {}}, {12, 40, 0})) {
    for (const int32_t id : sequence) {
      const float* row = embedding.row<float>(id);
      double mean = 0;
      for (int64_t k = 0; k < n; ++k) mean += static_cast<double>(row[k]) * row[k] / n;
      std::vector<double> x(n);
      for (int64_t k = 0; k < n; ++k) x[k] = row[k] / std::sqrt(mean + 1e-5) * norm.row<float>(0)[k];
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t j = 0; j < n; ++j) H[i * n + j] += x[i] * x[j];
      }
    }
  }
  for (const std::string name : {"q_proj", "k_proj", "v_proj"}) {
    const std::string module = "model.layers.0.self_attn." + name;
    const Matrix stored = source.load(source.tensor(module + ".weight"));
    const ConstMatrixView weight = stored;
    const float* w = weight.row<float>(0);
    const PaperResult oracle =
        paper_gptq(std::vector<double>(w, w + weight.size()), H, weight.rows, n, {.group_size = 32});
    const Matrix words = out.load(out.tensor(module + ".qweight"));
    ThreadPool pool(1);
    const std::vector<uint8_t> codes =
        unpack_streams({static_cast<const uint32_t*>(words.view().data), words.bytes() / 4}, n, weight.rows, 4, pool);
    int64_t equal = 0;
    for (size_t i = 0; i < codes.size(); ++i) equal += codes[i] == oracle.codes[i] ? 1 : 0;
    EXPECT_GE(static_cast<double>(equal) / static_cast<double>(codes.size()), 0.995) << name;
  }
}

TEST_F(Quantize, RoundingNeedsNoCalibration) {
  Job rtn = job("rtn");
  rtn.recipe.method = Method::rtn;
  rtn.calibration.file.clear();
  const Report report = quantize(rtn);
  EXPECT_EQ(report.tokens, 0);
  EXPECT_TRUE(std::isfinite(perplexity_of("rtn")));
}

TEST_F(Quantize, LossesOfGptqBeatRounding) {
  // Outputs at 3 bits, evaluated with the whole model.
  for (const Method method : {Method::rtn, Method::gptq}) {
    Job three = job(method == Method::rtn ? "rtn3" : "gptq3");
    three.recipe.bits = 3;
    three.recipe.method = method;
    quantize(three);
  }
  const Evaluation evaluation{
      .model = folder_ / "model", .texts = {folder_ / "ids.jsonl"}, .context = 40, .threads = 1};
  EXPECT_LT(compare(evaluation, folder_ / "gptq3").front().mean_kl,
            compare(evaluation, folder_ / "rtn3").front().mean_kl);
}

TEST_F(Quantize, AsymmetricIsWrittenAsVersionTwoAndReadBack) {
  Job asym = job("asym");
  asym.recipe.sym = false;
  quantize(asym);
  EXPECT_EQ(Checkpoint(folder_ / "asym").quantization_config().at("checkpoint_format"), "gptq_v2");
  Job v2 = job("v2");
  v2.recipe.checkpoint_format = "gptq_v2";
  quantize(v2);
  quantize(job("v1"));
  EXPECT_EQ(perplexity_of("v1"), perplexity_of("v2")) << "the same codes, zeros stored differently";
  EXPECT_NEAR(perplexity_of("asym") / perplexity_of("model"), 1, 0.2);
}

// The weights of all linears from a reader, in f32.
std::map<std::string, std::vector<float>> dequantized(const fs::path& folder) {
  const Checkpoint checkpoint(folder);
  const ModelConfig config = parse_model_config(checkpoint);
  const auto backend = open_backend("cpu");
  const WeightReader reader = quantized_reader(checkpoint);
  std::map<std::string, std::vector<float>> weights;
  for (int64_t block = 0; block < config.blocks; ++block) {
    for (const auto& step : step_specs(config, block)) {
      for (const LinearSpec& linear : step) {
        const PlaceWeight place = reader(linear);
        if (place) weights[linear.name] = to_host<float>(*backend, place(*backend, DType::f32).dense);
      }
    }
  }
  return weights;
}

TEST_F(Quantize, CompressedTensorsHoldTheSameWeightsBitForBit) {
  // 256 inputs, so that groups of 128 are possible.
  write_tiny_model(folder_ / "wide", {.hidden = 256, .intermediate = 256, .blocks = 1, .heads = 8, .head_dim = 32});
  for (const bool sym : {true, false}) {
    for (const int bits : {4, 8}) {
      for (const int64_t group_size : {32, 128, -1}) {
        SCOPED_TRACE(cat(sym ? "sym " : "asym ", bits, " bits, group ", group_size));
        Job first = job("gptq");
        first.model = folder_ / "wide";
        first.overwrite = true;
        first.recipe.sym = sym;
        first.recipe.bits = bits;
        first.recipe.group_size = group_size;
        Job second = first;
        second.output = folder_ / "ct";
        second.recipe.checkpoint_format = "compressed-tensors";
        quantize(first);
        quantize(second);
        const auto expected = dequantized(folder_ / "gptq");
        EXPECT_EQ(expected.size(), 7U);
        EXPECT_EQ(dequantized(folder_ / "ct"), expected);
      }
    }
  }
}

TEST_F(Quantize, CompressedTensorsFoldersAreWholeAndReadBack) {
  Job some = job("ct");
  some.recipe.checkpoint_format = "compressed-tensors";
  some.recipe.sym = false;
  some.recipe.modules_in_block_to_quantize = {{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}};
  const Report report = quantize(some);
  EXPECT_EQ(report.checkpoint_format, "compressed-tensors");
  EXPECT_FALSE(fs::exists(folder_ / "ct" / "quantize_config.json"));
  const Checkpoint out(folder_ / "ct");
  EXPECT_EQ(out.quantization_config().at("ignore").size(), 2U * 4 + 1);
  EXPECT_EQ(out.quantization_config().at("ignore").back(), "lm_head");
  for (const Json& name : out.quantization_config().at("ignore"))
    EXPECT_TRUE(out.has(cat(name.get<std::string>(), ".weight"))) << name;
  const std::string module = "model.layers.0.self_attn.k_proj";  // [32, 64]
  EXPECT_EQ(out.tensor(module + ".weight_packed").shape, (std::vector<int64_t>{32, 8}));
  EXPECT_EQ(out.tensor(module + ".weight_scale").shape, (std::vector<int64_t>{32, 2}));
  EXPECT_EQ(out.tensor(module + ".weight_zero_point").shape, (std::vector<int64_t>{4, 2}));
  EXPECT_EQ(out.tensor(module + ".weight_shape").dtype, "I64");
  EXPECT_FALSE(out.has(module + ".weight"));

  Job v2 = some;
  v2.output = folder_ / "v2";
  v2.recipe.checkpoint_format = "auto";
  quantize(v2);
  EXPECT_EQ(perplexity_of("ct"), perplexity_of("v2"));
  const Inspection found = inspect(folder_ / "ct"), plain = inspect(folder_ / "model");
  EXPECT_EQ(found.checkpoint_format, "compressed-tensors");
  EXPECT_EQ(found.parameters, plain.parameters);
  EXPECT_EQ(found.bits, 4);
  EXPECT_EQ(found.group_size, 32);
  EXPECT_FALSE(found.sym);
  int64_t with_bits = 0, bytes = 0;
  for (const auto& module : found.modules) {
    bytes += module.bytes;
    if (module.bits == 0) continue;
    ++with_bits;
    EXPECT_EQ(module.dtype, "compressed-tensors");
    EXPECT_EQ(module.bits, 4);
    EXPECT_EQ(module.group_size, 32);
  }
  EXPECT_EQ(with_bits, 6);
  EXPECT_EQ(bytes, found.bytes);
  EXPECT_EQ(found.loaders.size(), 5U);
}

TEST_F(Quantize, BrokenCompressedTensorsAreRefused) {
  Job ct = job("ct");
  ct.recipe.checkpoint_format = "compressed-tensors";
  ct.recipe.sym = false;
  quantize(ct);
  const std::string module = "model.layers.0.self_attn.q_proj";  // [64, 64] in groups of 32
  const auto refusal = [&](const std::function<void(TensorSpec&, std::vector<std::byte>&)>& change) {
    std::vector<TensorSpec> specs;
    std::vector<std::vector<std::byte>> values;
    {
      const Checkpoint from(folder_ / "ct");
      for (const StoredTensor* tensor : from.tensors()) {
        TensorSpec spec{tensor->name, tensor->dtype, tensor->shape};
        std::vector<std::byte> bytes(tensor->bytes);
        from.read(*tensor, 0, tensor->bytes, bytes.data());
        if (tensor->name.rfind(module + ".", 0) == 0) change(spec, bytes);
        bytes.resize(spec.bytes());
        specs.push_back(std::move(spec));
        values.push_back(std::move(bytes));
      }
    }
    fs::remove_all(folder_ / "broken");
    fs::create_directories(folder_ / "broken");
    fs::copy_file(folder_ / "ct" / "config.json", folder_ / "broken" / "config.json");
    SafetensorsWriter writer(folder_ / "broken" / "model.safetensors", specs);
    for (size_t i = 0; i < specs.size(); ++i) writer.write(specs[i].name, values[i].data(), values[i].size());
    writer.finish();
    try {
      dequantized(folder_ / "broken");
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("it was read");
  };
  const auto part = [&](const TensorSpec& spec, const char* name) { return spec.name == module + "." + name; };
  EXPECT_EQ(refusal([](TensorSpec&, std::vector<std::byte>&) {}), "it was read");
  for (const char* name : {"weight_packed", "weight_scale", "weight_zero_point", "weight_shape"}) {
    const std::string of_shape = refusal([&](TensorSpec& spec, std::vector<std::byte>&) {
      if (part(spec, name)) spec.shape.back() += 1;
    });
    EXPECT_NE(of_shape.find(module + "." + name), std::string::npos) << of_shape;
    const std::string of_type = refusal([&](TensorSpec& spec, std::vector<std::byte>&) {
      if (part(spec, name)) spec.dtype = "U8";
    });
    EXPECT_NE(of_type.find(module + "." + name + " is U8"), std::string::npos) << of_type;
  }
  for (const char* name : {"weight_scale", "weight_zero_point"}) {
    const std::string missing = refusal([&](TensorSpec& spec, std::vector<std::byte>&) {
      if (part(spec, name)) spec.name += "_elsewhere";
    });
    EXPECT_NE(missing.find(module + "." + name), std::string::npos) << missing;
  }
  const std::string says_other = refusal([&](TensorSpec& spec, std::vector<std::byte>& bytes) {
    if (part(spec, "weight_shape")) bytes[0] = std::byte{63};
  });
  EXPECT_NE(says_other.find("[63, 64]"), std::string::npos) << says_other;
  const std::string shuffled = refusal([&](TensorSpec& spec, std::vector<std::byte>&) {
    if (part(spec, "weight_shape")) spec.name = module + ".weight_g_idx";
  });
  EXPECT_NE(shuffled.find("weight_g_idx"), std::string::npos) << shuffled;
}

TEST_F(Quantize, DescActShufflesGroupIndicesAndIsReadBack) {
  Job desc = job("desc");
  desc.recipe.desc_act = true;
  desc.recipe.static_groups = false;
  quantize(desc);
  const Checkpoint out(folder_ / "desc");
  EXPECT_EQ(out.quantization_config().at("desc_act"), true);
  EXPECT_NEAR(perplexity_of("desc") / perplexity_of("model"), 1, 0.2);
}

TEST_F(Quantize, OnlyTheModulesThatWereAskedForChange) {
  Job some = job("some");
  some.recipe.modules_in_block_to_quantize = {{"self_attn.q_proj", "self_attn.v_proj"}, {"mlp.down_proj"}};
  EXPECT_EQ(quantize(some).linears.size(), 6U);
  const Checkpoint out(folder_ / "some");
  EXPECT_TRUE(out.has("model.layers.1.mlp.down_proj.qweight"));
  EXPECT_TRUE(out.has("model.layers.1.self_attn.k_proj.weight"));
  EXPECT_EQ(out.quantization_config().at("modules_in_block_to_quantize"),
            Json(some.recipe.modules_in_block_to_quantize));
  EXPECT_TRUE(std::isfinite(perplexity_of("some")));
  Job unknown = job("unknown");
  unknown.recipe.modules_in_block_to_quantize = {{"self_attn.query"}};
  EXPECT_THROW(quantize(unknown), InputError);
}

// Rules change the modules that they name, and nothing before those.
TEST_F(Quantize, RulesGiveModulesBitsGroupsAndOrdersOfTheirOwn) {
  quantize(job("plain"));
  Job mixed = job("mixed");
  mixed.recipe.dynamic = {{.pattern = ".*\\.0\\.self_attn\\.k_proj", .desc_act = true},
                          {.pattern = ".*\\.0\\.mlp\\.gate", .bits = 3},
                          {.pattern = ".*\\.1\\.self_attn\\.[qkv]_proj", .skip = true},
                          {.pattern = ".*\\.1\\.mlp\\.down", .bits = 8, .group_size = -1, .sym = false}};
  const Report report = quantize(mixed);
  EXPECT_EQ(report.linears.size(), 11U);
  EXPECT_EQ(report.checkpoint_format, "gptq_v2");
  const Checkpoint plain(folder_ / "plain"), out(folder_ / "mixed");
  const std::string first = "model.layers.0.", second = "model.layers.1.";
  for (const char* name : {"self_attn.q_proj.qweight", "self_attn.v_proj.scales"})
    EXPECT_EQ(bytes_of(out, first + name), bytes_of(plain, first + name)) << "its sibling has another order: " << name;
  EXPECT_NE(bytes_of(out, first + "self_attn.k_proj.g_idx"), bytes_of(plain, first + "self_attn.k_proj.g_idx"));
  EXPECT_EQ(out.tensor(first + "mlp.gate_proj.qweight").shape, (std::vector<int64_t>{64 * 3 / 32, 96}));
  EXPECT_EQ(out.tensor(first + "mlp.up_proj.qweight").shape, (std::vector<int64_t>{64 * 4 / 32, 96}));
  EXPECT_TRUE(out.has(second + "self_attn.q_proj.weight"));
  EXPECT_FALSE(out.has(second + "self_attn.q_proj.qweight"));
  EXPECT_EQ(out.tensor(second + "mlp.down_proj.scales").shape, (std::vector<int64_t>{1, 64}));
  EXPECT_NEAR(perplexity_of("mixed") / perplexity_of("model"), 1, 0.3);
  const Inspection inspection = inspect(folder_ / "mixed");
  const auto gate = std::find_if(inspection.modules.begin(), inspection.modules.end(),
                                 [&](const auto& module) { return module.name == first + "mlp.gate_proj"; });
  EXPECT_EQ(gate->bits, 3);
  EXPECT_FALSE(inspection.loaders[0].accepts) << "transformers does not read rules";
  EXPECT_TRUE(inspection.loaders[1].accepts) << "GPTQModel does";

  // Its own config is a recipe that reproduces it.
  Job again = job("again");
  again.recipe = read_recipe(folder_ / "mixed" / "quantize_config.json");
  quantize(again);
  EXPECT_EQ(contents(folder_ / "again"), contents(folder_ / "mixed"));
}

TEST_F(Quantize, RulesBecomeGroupsOfCompressedTensorsThatAreReadBack) {
  const auto with_format = [&](const std::string& name, const std::string& format) {
    Job mixed = job(name);
    mixed.recipe.checkpoint_format = format;
    mixed.recipe.dynamic = {{.pattern = ".*down", .bits = 8, .group_size = -1}, {.pattern = ".*o_proj", .skip = true}};
    quantize(mixed);
  };
  with_format("gptq", "gptq");
  with_format("ct", "compressed-tensors");
  EXPECT_EQ(perplexity_of("ct"), perplexity_of("gptq"));
  const Json config = read_json(folder_ / "ct" / "config.json").at("quantization_config");
  EXPECT_EQ(config.at("config_groups").size(), 2U);
  EXPECT_EQ(config.at("ignore").size(), 3U);
}

TEST_F(Quantize, WhatAllBlocksSkipIsSaidInTheWayThatOptimumReads) {
  Job skips = job("skips");
  skips.recipe.dynamic = {{.pattern = ".*(down|o)_proj", .skip = true}};
  quantize(skips);
  const Json config = read_json(folder_ / "skips" / "quantize_config.json");
  EXPECT_EQ(config.at("modules_in_block_to_quantize"),
            Json::parse(
                R"([["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["mlp.gate_proj", "mlp.up_proj"]])"));
  EXPECT_TRUE(inspect(folder_ / "skips").loaders[0].accepts);
  Job one = job("one");
  one.recipe.dynamic = {{.pattern = ".*\\.1\\..*o_proj", .skip = true}};
  quantize(one);
  EXPECT_EQ(read_json(folder_ / "one" / "quantize_config.json").count("modules_in_block_to_quantize"), 0U);
  EXPECT_FALSE(inspect(folder_ / "one").loaders[0].accepts);
}

TEST_F(Quantize, RulesThatMatchNothingAreToldAndThoseThatSkipAllRefused) {
  Job nothing = job("nothing");
  nothing.recipe.dynamic = {{.pattern = "model.layers.9", .bits = 8}};
  const Plan planned = plan(nothing);
  ASSERT_EQ(planned.warnings.size(), 1U);
  EXPECT_NE(planned.warnings[0].find("model.layers.9"), std::string::npos);
  nothing.recipe.dynamic = {{.pattern = "model", .skip = true}};
  EXPECT_THROW(plan(nothing), InputError);
}

TEST_F(Quantize, BitsAreChosenForAnAverageAndWrittenAsRules) {
  Job average = job("average");
  average.recipe.average_bits = 3.5;
  const Report report = quantize(average);
  ASSERT_EQ(report.bit_choices.size(), 8U);
  EXPECT_LE(report.average_bits, 3.5);
  EXPECT_GT(report.average_bits, 3.2);
  std::map<std::string, int> bits;
  double bits_of_all = 0, weights = 0;
  for (const LinearReport& linear : report.linears) {
    bits[linear.name] = linear.bits;
    bits_of_all += static_cast<double>(linear.bits * linear.rows * linear.cols);
    weights += static_cast<double>(linear.rows * linear.cols);
  }
  EXPECT_NEAR(report.average_bits, bits_of_all / weights, 1e-12);
  std::set<int> used;
  for (const BitChoice& choice : report.bit_choices) {
    for (const std::string& linear : choice.linears) EXPECT_EQ(bits.at(linear), choice.bits) << linear;
    used.insert(choice.bits);
    ASSERT_EQ(choice.divergence.size(), 3U);
    EXPECT_GT(choice.divergence[0].second, choice.divergence[1].second);
    EXPECT_GT(choice.divergence[1].second, choice.divergence[2].second);
    EXPECT_GE(choice.divergence[2].second, 0);
  }
  EXPECT_GE(used.size(), 2U);
  EXPECT_NEAR(static_cast<double>(report.plan.output_bytes), static_cast<double>(report.output_bytes),
              0.05 * static_cast<double>(report.output_bytes));

  EXPECT_THROW(quantize(average), InputError) << "what stands in the way is told before anything is measured";

  // The folder's own config reproduces it without measuring.
  Job again = job("again");
  again.recipe = read_recipe(folder_ / "average" / "quantize_config.json");
  EXPECT_EQ(again.recipe.average_bits, 0);
  quantize(again);
  EXPECT_EQ(contents(folder_ / "again"), contents(folder_ / "average"));
  const Inspection inspection = inspect(folder_ / "average");
  for (const auto& module : inspection.modules) {
    if (module.bits != 0) {
      EXPECT_EQ(module.bits, bits.at(module.name)) << module.name;
    }
  }
  EXPECT_TRUE(inspection.loaders[3].accepts) << "SGLang: fused linears have equal bits, and no odd sizes";
}

TEST_F(Quantize, RulesOfTheUserStandBesideChosenBits) {
  Job average = job("average");
  average.recipe.average_bits = 3.5;
  average.recipe.dynamic = {{.pattern = ".*\\.0\\.mlp\\.down", .bits = 8},
                            {.pattern = ".*\\.1\\..*o_proj", .skip = true}};
  const Report report = quantize(average);
  EXPECT_EQ(report.bit_choices.size(), 6U);
  EXPECT_LE(report.average_bits, 3.5);
  for (const LinearReport& linear : report.linears) {
    EXPECT_TRUE(linear.bits == (linear.name == "model.layers.0.mlp.down_proj" ? 8 : linear.bits)) << linear.name;
  }
}

TEST_F(Quantize, TheHeadIsQuantizedOnRequestFromWhatTheQuantizedBlocksGive) {
  quantize(job("plain"));
  const auto with_head = [&](const std::string& name) {
    Job asked = job(name);
    asked.recipe.lm_head = true;
    asked.recipe.dynamic = {{.pattern = "lm_head", .bits = 8}};
    return asked;
  };
  const Report report = quantize(with_head("head"));
  ASSERT_EQ(report.linears.size(), 15U);
  const LinearReport& head = report.linears.back();
  EXPECT_EQ(head.name, "lm_head");
  EXPECT_EQ(head.bits, 8);
  EXPECT_EQ(head.tokens, report.tokens);
  EXPECT_LT(head.error, 1e-3);
  EXPECT_EQ(report.average_bits, 4) << "of the blocks";
  const Checkpoint plain(folder_ / "plain"), out(folder_ / "head");
  EXPECT_FALSE(out.has("lm_head.weight"));
  EXPECT_TRUE(out.config().at("quantization_config").at("lm_head").get<bool>());
  for (const StoredTensor* tensor : out.tensors()) {
    if (!tensor->name.starts_with("lm_head")) {
      EXPECT_EQ(bytes_of(out, tensor->name), bytes_of(plain, tensor->name)) << tensor->name;
    }
  }
  EXPECT_NEAR(perplexity_of("head") / perplexity_of("plain"), 1, 0.01);
  const Inspection inspection = inspect(folder_ / "head");
  EXPECT_EQ(std::count_if(inspection.modules.begin(), inspection.modules.end(),
                          [](const auto& module) { return module.name == "lm_head" && module.bits == 8; }),
            1);

  Job other = with_head("other");
  other.recipe.checkpoint_format = "compressed-tensors";
  quantize(other);
  EXPECT_EQ(perplexity_of("other"), perplexity_of("head"));
  EXPECT_TRUE(read_json(folder_ / "other" / "config.json").at("quantization_config").at("ignore").empty());
}

TEST_F(Quantize, AHeadThatIsTheEmbeddingIsRefused) {
  write_tiny_model(folder_ / "tied", {.tied = true});
  Job asked = job("out");
  asked.model = folder_ / "tied";
  asked.recipe.lm_head = true;
  try {
    quantize(asked);
    ADD_FAILURE() << "it was quantized";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("tie_word_embeddings"), std::string::npos) << error.what();
  }
}

TEST_F(Quantize, OnlyWidthsThatALoaderTakesAreUpForChoice) {
  Job average = job("average");
  average.recipe.average_bits = 5;
  average.loader = "sglang";
  for (const BitChoice& choice : quantize(average).bit_choices) EXPECT_TRUE(choice.bits == 4 || choice.bits == 8);
  const auto refusal = [&](double bits, const std::string& loader) {
    Job refused = job("refused");
    refused.recipe.average_bits = bits;
    refused.loader = loader;
    try {
      plan(refused);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(3.5, "gptqmodel"), "");
  EXPECT_NE(refusal(3.5, "transformers").find("rules for single modules"), std::string::npos);
  EXPECT_NE(refusal(5, "exllamav2").find("4 bits only"), std::string::npos);
  EXPECT_NE(refusal(3.5, "vllm").find("multiples"), std::string::npos) << "this model's sizes do not fit its kernels";
  EXPECT_NE(refusal(0, "llama.cpp").find("exllamav2"), std::string::npos);
  EXPECT_NE(refusal(9, "").find("`average_bits`"), std::string::npos);
  Job three = job("three");
  three.recipe.bits = 3;
  three.loader = "exllamav2";
  EXPECT_THROW(plan(three), InputError);
}

TEST_F(Quantize, WithoutTrueSequentialTheFirstStepIsTheSameAndTheRestIsNot) {
  Job at_once = job("at_once");
  at_once.recipe.true_sequential = false;
  quantize(at_once);
  quantize(job("sequential"));
  const Checkpoint a(folder_ / "at_once"), b(folder_ / "sequential");
  const auto bytes = [](const Checkpoint& checkpoint, const std::string& name) { return bytes_of(checkpoint, name); };
  EXPECT_EQ(bytes(a, "model.layers.0.self_attn.q_proj.qweight"), bytes(b, "model.layers.0.self_attn.q_proj.qweight"));
  EXPECT_NE(bytes(a, "model.layers.0.mlp.down_proj.qweight"), bytes(b, "model.layers.0.mlp.down_proj.qweight"));
}

TEST_F(Quantize, BiasesTiedHeadsAndShardsAreCarriedThrough) {
  write_tiny_model(folder_ / "biased", {.tied = true, .bias = true});
  Job biased = job("out");
  biased.model = folder_ / "biased";
  biased.max_shard_bytes = 20'000;
  quantize(biased);
  EXPECT_TRUE(fs::exists(folder_ / "out" / "model.safetensors.index.json"));
  EXPECT_TRUE(Checkpoint(folder_ / "out").has("model.layers.0.self_attn.q_proj.bias"));
  EXPECT_NEAR(perplexity_of("out") / perplexity_of("biased"), 1, 0.3);
}

TEST_F(Quantize, SequencesOfDifferentLengthsAreKeptAsTheyAre) {
  write_file(folder_ / "ragged.jsonl",
             "{\"input_ids\": [1,2,3,4,5,6,7,8,9]}\n{\"input_ids\": [4]}\n{\"input_ids\": [9,8,7,6,5,4,3,2,1,0,11]}\n");
  Job ragged = job("out");
  ragged.calibration.file = folder_ / "ragged.jsonl";
  const Report report = quantize(ragged);
  EXPECT_EQ(report.sequences, 3);
  EXPECT_EQ(report.tokens, 21);
  EXPECT_FALSE(report.warnings.empty()) << "fewer sequences than asked for";
}

TEST_F(Quantize, StopsWhenAskedAndLeavesNothing) {
  std::stop_source stop;
  Job stopped = job("out");
  stopped.stop = stop.get_token();
  int steps = 0;
  EXPECT_THROW(quantize(stopped, {.on_message = {},
                                  .on_progress =
                                      [&](const Progress&) {
                                        if (++steps == 3) stop.request_stop();
                                      }}),
               Cancelled);
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  for (const auto& entry : fs::directory_iterator(folder_.path())) {
    EXPECT_EQ(entry.path().filename().string().find("partial"), std::string::npos) << entry.path();
  }
}

TEST_F(Quantize, PlansInspectionsAndTextsStopWhenAsked) {
  std::stop_source stop;
  stop.request_stop();
  Job stopped = job("out");
  stopped.stop = stop.get_token();
  EXPECT_THROW(plan(stopped), Cancelled);
  EXPECT_THROW(inspect(folder_ / "model", stop.get_token()), Cancelled);
  EXPECT_THROW(tokenize(folder_ / "model", folder_ / "ids.jsonl", stop.get_token()), Cancelled);
  const fs::path demo = fs::path(GPTQ_SOURCE) / "demo" / "model";
  EXPECT_THROW(generate({.model = demo, .tokens = 2, .threads = 1, .stop = stop.get_token()}, "Once"), Cancelled);
}

TEST_F(Quantize, CalibrationFromMemoryGivesTheBytesOfItsFile) {
  quantize(job("from_file"));
  Job from_memory = job("from_memory");
  from_memory.calibration.ids = tokenize(folder_ / "model", from_memory.calibration.file);
  from_memory.calibration.file = "";
  const Plan planned = plan(from_memory);
  const Report report = quantize(from_memory);
  EXPECT_EQ(report.sequences, planned.sequences);
  EXPECT_EQ(contents(folder_ / "from_memory"), contents(folder_ / "from_file"));
  from_memory.calibration.ids = {{1, -2, 3}};
  from_memory.overwrite = true;
  EXPECT_THROW(quantize(from_memory), InputError);
}

TEST_F(Quantize, TellsHowFarItIs) {
  double last = 0;
  bool finished = false;
  const auto on_progress = [&](const Progress& progress) {
    EXPECT_GE(progress.fraction, last);
    EXPECT_LE(progress.fraction, 1);
    EXPECT_EQ(progress.blocks, 2);
    EXPECT_GT(progress.memory_bytes, 0);
    last = progress.fraction;
    finished = progress.fraction > 0.999;
  };
  quantize(job("out"), {.on_message = {}, .on_progress = on_progress});
  EXPECT_TRUE(finished);
}

TEST_F(Quantize, ReportsEveryLinearAndNoFallback) {
  const Report report = quantize(job("out"));
  EXPECT_TRUE(report.fallbacks.empty());
  EXPECT_NEAR(report.bits_per_weight, 4 + 20.0 / 32, 0.6);
  for (const LinearReport& linear : report.linears) {
    EXPECT_GT(linear.loss, 0) << linear.name;
    EXPECT_GT(linear.error, 0) << linear.name;
    EXPECT_LT(linear.error, 0.1) << linear.name;
  }
  const Json json = Json::parse(to_json(report));
  EXPECT_EQ(json.at("linears").size(), 14U);
  EXPECT_EQ(json.at("recipe").at("bits"), 4);
}

TEST_F(Quantize, InspectSaysWhatIsThere) {
  quantize(job("out"));
  const Inspection plain = inspect(folder_ / "model"), quantized = inspect(folder_ / "out");
  EXPECT_EQ(plain.checkpoint_format, "");
  EXPECT_EQ(quantized.checkpoint_format, "gptq");
  EXPECT_EQ(quantized.parameters, plain.parameters);
  EXPECT_EQ(quantized.bits, 4);
  int64_t with_bits = 0, bytes = 0;
  for (const auto& module : quantized.modules) {
    bytes += module.bytes;
    if (module.bits == 0) continue;
    ++with_bits;
    EXPECT_EQ(module.bits, 4);
    EXPECT_EQ(module.group_size, 32);
  }
  EXPECT_EQ(with_bits, 14);
  EXPECT_EQ(bytes, quantized.bytes);
  EXPECT_EQ(quantized.loaders.size(), 5U);
}

TEST_F(Quantize, ASideFileThatCannotBeCopiedIsRefusedBeforeAnythingIsComputed) {
  fs::create_symlink("/etc/passwd", folder_ / "model/readme.txt");
  const Listener listener{.on_message = {}, .on_progress = [](const Progress&) { FAIL() << "it computes"; }};
  const Job some = job("out");
  for (const bool plans : {false, true}) {
    try {
      plans ? static_cast<void>(plan(some)) : static_cast<void>(quantize(some, listener));
      ADD_FAILURE() << "it was copied";
    } catch (const InputError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("readme.txt: a link out of the model's folder, to /etc/passwd"), std::string::npos)
          << message;
    }
    EXPECT_FALSE(fs::exists(folder_ / "out"));
  }
}

TEST_F(Quantize, AFolderForSpillingThatMayNotBeLookedAtIsNamed) {
  fs::create_directories(folder_ / "closed/spill");
  fs::permissions(folder_.path(), fs::perms::all);
  fs::permissions(folder_ / "closed", fs::perms::none);
  Job some = job("out");
  some.spill_dir = folder_ / "closed/spill";
  const std::string outcome = testing_io::in_child([&] {
    testing_io::become_nobody();
    plan(some);
  });
  fs::permissions(folder_ / "closed", fs::perms::owner_all);
  EXPECT_EQ(outcome, "InputError: `spill_dir` " + some.spill_dir + ": cannot look at it (Permission denied)");
}

TEST_F(Quantize, RefusesWhatIsAlreadyQuantized) {
  quantize(job("out"));
  Job again = job("again");
  again.model = folder_ / "out";
  EXPECT_THROW(quantize(again), InputError);
}

}  // namespace
}  // namespace gptq
