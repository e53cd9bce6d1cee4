// All golden families, quantized and read back: the result is close to the model.
#include <gtest/gtest.h>

#include "base/error.h"
#include "golden_families.h"
#include "gptq/gptq.h"
#include "plan/layout.h"
#include "plan/mixed_bits.h"
#include "tiny_model.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;
using namespace testing_model;  // NOLINT: helpers of the fixture

constexpr int64_t kVocabulary = 66, kContext = 16;

class Families : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::string lines;
    for (int64_t sequence = 0; sequence < 24; ++sequence) {
      Json ids = Json::array();
      for (int64_t i = 0; i < kContext; ++i) ids.push_back((sequence * 7 + i * i * 5 + i * sequence) % kVocabulary);
      lines += Json({{"input_ids", ids}}).dump() + "\n";
    }
    write_file(folder_ / "ids.jsonl", lines);
  }
  std::string model() const { return fs::path(GPTQ_GOLDEN) / "families" / GetParam(); }
  // In fp32 on every machine: in bf16, roundings change the routing of these small models with experts.
  Job job(const std::string& output, int bits) const {
    Job job{.model = model(), .output = folder_ / output, .threads = 1, .precision = "fp32"};
    job.calibration = {.file = folder_ / "ids.jsonl", .samples = 24, .sequence_length = kContext};
    job.recipe.group_size = -1;
    job.recipe.bits = bits;
    job.recipe.expert_tokens = 32;
    return job;
  }
  Comparison comparison(const std::string& output) const {
    return compare({.model = model(),
                    .texts = {folder_ / "ids.jsonl"},
                    .context = kContext,
                    .threads = 1,
                    .precision = "fp32"},
                   folder_ / output)
        .front();
  }
  TemporaryFolder folder_;
};

TEST_P(Families, EightBitsChangeNextToNothing) {
  const Report report = quantize(job("out", 8));
  const Comparison found = comparison("out");
  EXPECT_LT(found.mean_kl, 0.05) << found.mean_kl;
  EXPECT_GT(found.mean_kl, 0);

  // Every linear has codes, no other tensor is missing, and no replaced tensor remains.
  const Checkpoint source(model()), out(folder_ / "out");
  const ModelConfig config = parse_model_config(source);
  std::set<std::string> replaced;
  size_t linears = 0;
  for (const auto& step : all_steps(config)) {
    for (const LinearSpec& linear : step) {
      EXPECT_TRUE(out.has(linear.name + ".qweight")) << linear.name;
      EXPECT_TRUE(!linear.bias || out.has(linear.name + ".bias") || out.has(linear.bias_tensor)) << linear.name;
      replaced.insert(linear.tensor);
      if (linear.bias && linear.matrix_index >= 0) replaced.insert(linear.bias_tensor);
      ++linears;
    }
  }
  EXPECT_EQ(report.linears.size(), linears);
  for (const StoredTensor* tensor : source.tensors())
    EXPECT_EQ(out.has(tensor->name), replaced.count(tensor->name) == 0) << tensor->name;
}

TEST_P(Families, TwoStreamsAndOnePassDoToo) {
  Job corrected = job("corrected", 8), at_once = job("at-once", 8);
  corrected.recipe.targets = Targets::corrected;
  at_once.recipe.true_sequential = false;
  at_once.recipe.moe_calibrate_all_experts = true;
  quantize(corrected);
  quantize(at_once);
  EXPECT_LT(comparison("corrected").mean_kl, 0.05);
  EXPECT_LT(comparison("at-once").mean_kl, 0.06);
}

// A run on a simulated accelerator takes the planned memory, for all kinds of blocks.
TEST_P(Families, TakesTheMemoryThatItsPlanSays) {
  Job on_device = job("device", 4);
  on_device.device_map = "sim:0";
  const Report report = quantize(on_device);
  ASSERT_EQ(report.plan.accelerators.size(), 1U);
  const int64_t planned = report.plan.accelerators[0].peak_bytes, taken = report.devices[0].peak_bytes;
  // A plan cannot foresee columns that no token activates; rounding them takes a copy of a linear's codes.
  EXPECT_LE(static_cast<double>(taken), 1.005 * static_cast<double>(planned));
  EXPECT_GT(static_cast<double>(taken), 0.85 * static_cast<double>(planned));
}

// A gate for each of few heads has fewer rows than 3 bits can be packed in.
TEST(FamiliesAtThreeBits, GatesPerHeadAreKept) {
  const TemporaryFolder folder;
  const TinyOptions sizes;
  Json config = tiny_config(sizes);
  config["model_type"] = "lfm3";
  config["layer_types"] = Json(std::vector<std::string>(static_cast<size_t>(sizes.blocks), "full_attention"));
  config["use_sandwich_norm"] = false;
  std::vector<TinyTensor> tensors = tiny_tensors(sizes);
  const std::pair<std::string, std::string> names[] = {
      {"input_layernorm", "operator_norm"},   {"post_attention_layernorm", "ffn_norm"},
      {"model.norm", "model.embedding_norm"}, {"mlp.gate_proj", "feed_forward.w1"},
      {"mlp.up_proj", "feed_forward.w3"},     {"mlp.down_proj", "feed_forward.w2"}};
  for (TinyTensor& tensor : tensors) {
    for (const auto& [llama, own] : names) {
      const size_t place = tensor.spec.name.find(llama);
      if (place != std::string::npos) tensor.spec.name.replace(place, llama.size(), own);
    }
  }
  const auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    TinyTensor tensor{{name, "F32", std::move(shape)}, {}};
    tensor.values.assign(tensor.spec.bytes() / sizeof(float), 0.5F);
    tensors.push_back(std::move(tensor));
  };
  for (int64_t block = 0; block < sizes.blocks; ++block) {
    const std::string attention = cat("model.layers.", block, ".self_attn.");
    add(attention + "q_norm.weight", {sizes.head_dim});
    add(attention + "k_norm.weight", {sizes.head_dim});
    add(attention + "gate_proj.weight", {sizes.heads, sizes.hidden});
  }
  write_model(folder / "model", config, tensors);
  write_ids(folder / "ids.jsonl", 8, kContext);
  Job job{.model = folder / "model", .output = folder / "out", .threads = 1, .precision = "fp32"};
  job.calibration = {.file = folder / "ids.jsonl", .samples = 8, .sequence_length = kContext};
  job.recipe.bits = 3;
  job.recipe.group_size = 32;
  quantize(job);
  const Checkpoint out(folder / "out");
  EXPECT_TRUE(out.has("model.layers.0.self_attn.gate_proj.weight"));
  EXPECT_TRUE(out.has("model.layers.0.self_attn.q_proj.qweight"));
  const std::string named = out.quantization_config().at("modules_in_block_to_quantize").dump();
  EXPECT_EQ(named.find("gate_proj"), std::string::npos) << named;
  EXPECT_NE(named.find("self_attn.q_proj"), std::string::npos) << named;
}

// Hybrids name what is quantized, with experts too: the gates of the delta rule and Mamba's projections are not.
TEST(HybridsWithExperts, NameWhatIsQuantized) {
  for (const std::string name : {"qwen3_next", "jamba"}) {
    Job job{.model = fs::path(GPTQ_GOLDEN) / "families" / name, .recipe = {.group_size = -1}};
    const Facts facts = find_facts(job);
    const OutputRecord record = output_record(job, facts, lay_out(job, facts));
    std::set<std::string> named;
    for (const auto& step : record.recipe.modules_in_block_to_quantize) named.insert(step.begin(), step.end());
    EXPECT_EQ(named.count("self_attn.q_proj"), 1U) << name;
    EXPECT_EQ(named.count(name == "jamba" ? "feed_forward.experts.0.up_proj" : "mlp.experts.0.up_proj"), 1U) << name;
    EXPECT_EQ(named.count("linear_attn.in_proj_ba"), 0U) << name;
    EXPECT_EQ(named.count("mamba.x_proj"), 0U) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Families, testing::ValuesIn(family_names()), test_name);

}  // namespace
}  // namespace gptq
