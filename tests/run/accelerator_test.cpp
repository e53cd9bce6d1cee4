// Whole jobs on accelerators: a GPU if there is one (else skipped), and a simulated one that runs out of memory.
#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "backend/backend.h"
#include "backend/registry.h"
#include "gptq/gptq.h"
#include "plan/layout.h"
#include "run/rehearse.h"
#include "tiny_model.h"

namespace gptq {
namespace {

using namespace testing_model;  // NOLINT: helpers of the fixture

class AcceleratorJob : public testing::Test {
 protected:
  void SetUp() override {
    write_tiny_model(folder_ / "model");
    write_ids(folder_ / "ids.jsonl", 12, 40);
    write_ids(folder_ / "many.jsonl", 600, 40);
  }
  // A job whose states take most of the memory.
  Job large_job(const std::string& output, const std::string& device) const {
    Job large = job(output, device);
    large.calibration = {.file = folder_ / "many.jsonl", .samples = 600, .sequence_length = 40};
    large.batch_size = 4;
    return large;
  }
  Job job(const std::string& output, const std::string& device) const {
    Job job{.model = folder_ / "model", .output = folder_ / output, .threads = 1};
    job.calibration = {.file = folder_ / "ids.jsonl", .samples = 12, .sequence_length = 40};
    job.recipe.group_size = 32;
    job.device_map = device;
    return job;
  }
  double perplexity_of(const std::string& name, const std::string& device) const {
    return perplexity({.model = folder_ / name,
                       .texts = {folder_ / "ids.jsonl"},
                       .device_map = device,
                       .context = 40,
                       .threads = 1})
        .front()
        .perplexity;
  }
  void expect_same_weights(const std::string& one, const std::string& other) const {
    EXPECT_TRUE(read_file(folder_ / one / "model.safetensors") == read_file(folder_ / other / "model.safetensors"))
        << one << " and " << other;
  }
  // The number of sequences that pass at once with this much device memory; 0: too little.
  int64_t at_once(Job job, const std::string& device, int64_t bytes) const {
    const gptq::Setup setup = set_up(job);
    try {
      return rehearse(job, setup, {.max_held = 0, .limits = {{device, bytes}}}).sequences_at_once;
    } catch (const OutOfMemory&) {
      return 0;
    }
  }
  TemporaryFolder folder_;
};

TEST_F(AcceleratorJob, WhereMemoryIsShortFewerSequencesPassAtOnceWithTheSameResult) {
  Job whole = job("whole", "sim:0");
  whole.batch_size = 12;
  quantize(whole);
  const int64_t enough = rehearse(whole, set_up(whole), {.max_held = 0}).peaks.at("sim:0");
  int64_t less = enough;  // found by search: fewer sequences pass, but at least one
  while (at_once(whole, "sim:0", less) > 12) less -= enough / 64;
  ASSERT_GT(at_once(whole, "sim:0", less), 0) << "nothing but the passes should shrink at first";

  Job tight = job("tight", "sim:0");
  tight.batch_size = 12;
  tight.max_memory = "{\"sim:0\": " + std::to_string(less) + "}";
  const Report report = quantize(tight);
  EXPECT_EQ(report.states, "device");
  EXPECT_LT(report.plan.sequences_at_once, 12);
  EXPECT_LE(report.devices[0].peak_bytes, less);
  expect_same_weights("whole", "tight");
}

TEST_F(AcceleratorJob, InputsThatAreComputedOnceMoreGiveTheSameBytes) {
  Job roomy = large_job("roomy", "sim:0");
  EXPECT_TRUE(quantize(roomy).plan.keeps_inputs);
  const int64_t limit =
      rehearse(roomy, set_up(roomy), {.strategy = {.keeps_inputs = false}, .max_held = 0}).peaks.at("sim:0");
  Job tight = large_job("tight", "sim:0");
  tight.max_memory = "{\"sim:0\": " + std::to_string(limit) + "}";
  const Report report = quantize(tight);
  EXPECT_EQ(report.states, "device");
  EXPECT_FALSE(report.plan.keeps_inputs);
  expect_same_weights("roomy", "tight");
}

class GpuJob : public AcceleratorJob {
 protected:
  void SetUp() override {
    try {
      open_backend("cuda:0");
    } catch (const InputError& error) {
      GTEST_SKIP() << error.what();
    }
    AcceleratorJob::SetUp();
  }
};

TEST_F(GpuJob, FindsWhatTheCpuFindsAndTheSameBytesTwice) {
  const Report on_cpu = quantize(job("cpu", "cpu")), on_gpu = quantize(job("gpu", "cuda:0"));
  quantize(job("again", "cuda:0"));
  expect_same_weights("gpu", "again");
  EXPECT_TRUE(on_gpu.fallbacks.empty()) << on_gpu.fallbacks[0].first;
  ASSERT_EQ(on_cpu.linears.size(), on_gpu.linears.size());
  for (size_t i = 0; i < on_cpu.linears.size(); ++i) {
    EXPECT_NEAR(on_gpu.linears[i].loss, on_cpu.linears[i].loss, 0.03 * on_cpu.linears[i].loss)
        << on_gpu.linears[i].name;
  }
  EXPECT_NEAR(perplexity_of("gpu", "cpu"), perplexity_of("cpu", "cpu"), 3e-3 * perplexity_of("cpu", "cpu"));
}

TEST_F(GpuJob, EvaluatesAsTheCpuDoes) {
  EXPECT_NEAR(perplexity_of("model", "cuda:0"), perplexity_of("model", "cpu"), 2e-3 * perplexity_of("model", "cpu"));
}

TEST_F(GpuJob, EveryRecipeRuns) {
  int index = 0;
  for (const auto& [bits, sym, desc_act, dynamic_groups] :
       {std::tuple{2, true, false, false}, {3, false, false, true}, {8, true, true, true}, {4, true, false, true}}) {
    Job each = job("recipe" + std::to_string(index), "cuda:0"), same = job("cpu" + std::to_string(index), "cpu");
    for (Job* which : {&each, &same}) {
      which->recipe.bits = bits;
      which->recipe.sym = sym;
      which->recipe.desc_act = desc_act;
      which->recipe.static_groups = !dynamic_groups;
      which->recipe.order = dynamic_groups && !desc_act ? Order::natural : Order::diagonal;
    }
    const Report on_gpu = quantize(each), on_cpu = quantize(same);
    for (size_t i = 0; i < on_cpu.linears.size(); ++i) {
      EXPECT_NEAR(on_gpu.linears[i].loss, on_cpu.linears[i].loss, 0.05 * on_cpu.linears[i].loss)
          << bits << " bits, " << on_gpu.linears[i].name;
    }
    ++index;
  }
}

TEST_F(GpuJob, StatesElsewhereAndShortMemoryGiveTheSameBytes) {
  quantize(large_job("device", "cuda:0"));
  // Less memory than states and a block need, so that states are moved, after their inputs are dropped. A plan does not
  // see cuSOLVER's memory.
  Job planned = large_job("plan", "cuda:0");
  const gptq::Setup setup = set_up(planned);
  constexpr int64_t kSolver = int64_t{1} << 20;
  for (const StatePlace place : {StatePlace::device, StatePlace::host}) {
    const std::string name(place == StatePlace::host ? "host" : "rebuilt");
    const int64_t limit = rehearse(large_job("plan", "cuda:0"), setup,
                                   {.strategy = {.states = place, .keeps_inputs = false}, .max_held = 0})
                              .peaks.at("cuda:0");
    Job tight = large_job(name, "cuda:0");
    tight.max_memory = "{\"cuda:0\": " + std::to_string(limit + kSolver) + "}";
    const Report report = quantize(tight);
    EXPECT_EQ(report.states, place == StatePlace::host ? "host" : "device");
    EXPECT_FALSE(report.plan.keeps_inputs);
    expect_same_weights("device", name);
  }
}

TEST_F(GpuJob, ModulesOnTheCpuVisit) {
  quantize(job("gpu", "cuda:0"));
  const Report report = quantize(job(
      "visits",
      R"({"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "cuda:0", "model.norm": "cuda:0", "lm_head": "cpu"})"));
  expect_same_weights("gpu", "visits");
  EXPECT_EQ(report.visits.size(), 2U);
}

TEST_F(GpuJob, BlocksOnTwoGpusGiveTheBytesOfOne) {
  try {
    open_backend("cuda:1");
  } catch (const InputError& error) {
    GTEST_SKIP() << error.what();
  }
  quantize(job("one", "cuda:0"));
  quantize(job(
      "two", R"({"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1, "model.norm": 1, "lm_head": 1})"));
  expect_same_weights("one", "two");
}

}  // namespace
}  // namespace gptq
