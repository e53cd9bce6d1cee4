// Whole jobs on accelerators: a GPU and an OpenCL device if there are such (else skipped), and a simulated one that
// runs out of memory.
#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "backend/backend.h"
#include "backend/registry.h"
#include "gptq/gptq.h"
#include "plan/layout.h"
#include "run/rehearse.h"
#include "tiny_model.h"

// PoCL's compiler keeps memory until the program ends.
extern "C" const char* __lsan_default_suppressions() {  // NOLINT: the name that LeakSanitizer looks for
  return "leak:libpocl\nleak:libLLVM\nleak:libclang-cpp\n";
}

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
  // Skips the test where this machine lacks the device.
  static void need(const std::string& device) {
    try {
      open_backend(device);
    } catch (const InputError& error) {
      GTEST_SKIP() << error.what();
    }
  }

  // The device that computes with the CPU's kernels: modules on "cpu" would visit an accelerator.
  static constexpr const char* kCpu = "sim:0";

  Report on_cpu(const std::string& output, const std::function<void(Job&)>& change = nullptr) {
    Job same = job(output, kCpu);
    if (change) change(same);
    return quantize(same);
  }

  void expect_what_the_cpu_finds_and_the_same_bytes_twice(const std::string& device) {
    const Report there = on_cpu("cpu"), here = quantize(job("here", device));
    quantize(job("again", device));
    expect_same_weights("here", "again");
    EXPECT_TRUE(here.fallbacks.empty()) << here.fallbacks[0].first;
    ASSERT_EQ(there.linears.size(), here.linears.size());
    for (size_t i = 0; i < there.linears.size(); ++i) {
      EXPECT_NEAR(here.linears[i].loss, there.linears[i].loss, 0.03 * there.linears[i].loss) << here.linears[i].name;
    }
    EXPECT_NEAR(perplexity_of("here", kCpu), perplexity_of("cpu", kCpu), 3e-3 * perplexity_of("cpu", kCpu));
  }
  void expect_the_perplexity_of_the_cpu(const std::string& device) {
    EXPECT_NEAR(perplexity_of("model", device), perplexity_of("model", kCpu), 2e-3 * perplexity_of("model", kCpu));
  }
  void expect_every_recipe_to_run(const std::string& device) {
    int index = 0;
    for (const auto& [bits, sym, desc_act, dynamic_groups] :
         {std::tuple{2, true, false, false}, {3, false, false, true}, {8, true, true, true}, {4, true, false, true}}) {
      const auto change = [&, bits = bits, sym = sym, desc_act = desc_act,
                           dynamic_groups = dynamic_groups](Job& which) {
        which.recipe.bits = bits;
        which.recipe.sym = sym;
        which.recipe.desc_act = desc_act;
        which.recipe.static_groups = !dynamic_groups;
        which.recipe.order = dynamic_groups && !desc_act ? Order::natural : Order::diagonal;
      };
      Job each = job("recipe" + std::to_string(index), device);
      change(each);
      const Report here = quantize(each), there = on_cpu("cpu" + std::to_string(index), change);
      EXPECT_TRUE(here.fallbacks.empty()) << here.fallbacks[0].first;
      for (size_t i = 0; i < there.linears.size(); ++i) {
        EXPECT_NEAR(here.linears[i].loss, there.linears[i].loss, 0.05 * there.linears[i].loss)
            << bits << " bits, " << here.linears[i].name;
      }
      ++index;
    }
  }
  // Less memory than states and a block need, so that states are moved, after their inputs are dropped. A plan does not
  // see `unseen` bytes.
  void expect_the_same_bytes_where_memory_is_short(const std::string& device, int64_t unseen) {
    quantize(large_job("device", device));
    Job planned = large_job("plan", device);
    const gptq::Setup setup = set_up(planned);
    for (const StatePlace place : {StatePlace::device, StatePlace::host}) {
      const std::string name(place == StatePlace::host ? "host" : "rebuilt");
      const int64_t limit = rehearse(large_job("plan", device), setup,
                                     {.strategy = {.states = place, .keeps_inputs = false}, .max_held = 0})
                                .peaks.at(device);
      Job tight = large_job(name, device);
      tight.max_memory = "{\"" + device + "\": " + std::to_string(limit + unseen) + "}";
      const Report report = quantize(tight);
      EXPECT_EQ(report.states, place == StatePlace::host ? "host" : "device");
      EXPECT_FALSE(report.plan.keeps_inputs);
      EXPECT_LE(report.devices[0].peak_bytes, limit + unseen);
      expect_same_weights("device", name);
    }
  }
  // A trimmed pool keeps at most one of its chunks, whose other part is in use.
  void expect_modules_on_the_cpu_to_visit(const std::string& device, int64_t chunk) {
    quantize(job("stays", device));
    const Report report =
        quantize(job("visits", R"({"model.embed_tokens": "cpu", "model.layers.0": "cpu", "lm_head": "cpu",
                                                     "model.layers.1": ")" +
                                   device + R"(", "model.norm": ")" + device + "\"}"));
    expect_same_weights("stays", "visits");
    EXPECT_EQ(report.visits.size(), 2U);
    // Caches are cleared after the inputs, after each of two blocks and at the end.
    ASSERT_EQ(report.trims.size(), 4U);
    for (const auto& trim : report.trims) EXPECT_LE(trim.held_after, chunk) << trim.when;
  }
  void expect_the_bytes_of_one_device_on_two(const std::string& one, const std::string& other) {
    std::string map;
    const auto give = [&](const char* module, const std::string& device) {
      map += cat(map.empty() ? "{" : ", ", '"', module, "\": \"", device, '"');
    };
    for (const char* module : {"model.embed_tokens", "model.layers.0"}) give(module, one);
    for (const char* module : {"model.layers.1", "model.norm", "lm_head"}) give(module, other);
    quantize(job("one", one));
    quantize(job("two", map + "}"));
    expect_same_weights("one", "two");
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
    need("cuda:0");
    if (!IsSkipped()) AcceleratorJob::SetUp();
  }
};

TEST_F(GpuJob, FindsWhatTheCpuFindsAndTheSameBytesTwice) {
  expect_what_the_cpu_finds_and_the_same_bytes_twice("cuda:0");
}

TEST_F(GpuJob, EvaluatesAsTheCpuDoes) { expect_the_perplexity_of_the_cpu("cuda:0"); }

TEST_F(GpuJob, EveryRecipeRuns) { expect_every_recipe_to_run("cuda:0"); }

TEST_F(GpuJob, StatesElsewhereAndShortMemoryGiveTheSameBytes) {
  constexpr int64_t kSolver = int64_t{1} << 20;  // cuSOLVER's memory
  expect_the_same_bytes_where_memory_is_short("cuda:0", kSolver);
}

TEST_F(GpuJob, ModulesOnTheCpuVisit) { expect_modules_on_the_cpu_to_visit("cuda:0", int64_t{32} << 20); }

TEST_F(GpuJob, BlocksOnTwoGpusGiveTheBytesOfOne) {
  need("cuda:1");
  if (!IsSkipped()) expect_the_bytes_of_one_device_on_two("cuda:0", "cuda:1");
}

// OpenCL devices of any kind. PoCL shows the processor as two.
class XpuJob : public AcceleratorJob {
 protected:
  void SetUp() override {
    setenv("GPTQ_OPENCL_DEVICES", "all", 1);
    setenv("POCL_DEVICES", "pthread basic", 0);
    need("xpu:0");
    if (!IsSkipped()) AcceleratorJob::SetUp();
  }
  void TearDown() override { setenv("GPTQ_OPENCL_DEVICES", "none", 1); }  // as other tests have it
};

TEST_F(XpuJob, FindsWhatTheCpuFindsAndTheSameBytesTwice) {
  expect_what_the_cpu_finds_and_the_same_bytes_twice("xpu:0");
}

TEST_F(XpuJob, EvaluatesAsTheCpuDoes) { expect_the_perplexity_of_the_cpu("xpu:0"); }

TEST_F(XpuJob, EveryRecipeRuns) { expect_every_recipe_to_run("xpu:0"); }

TEST_F(XpuJob, StatesElsewhereAndShortMemoryGiveTheSameBytes) {
  expect_the_same_bytes_where_memory_is_short("xpu:0", 0);
}

TEST_F(XpuJob, ModulesOnTheCpuVisit) { expect_modules_on_the_cpu_to_visit("xpu:0", 0); }

TEST_F(XpuJob, BlocksOnTwoDevicesGiveTheBytesOfOne) {
  need("xpu:1");
  if (!IsSkipped()) expect_the_bytes_of_one_device_on_two("xpu:0", "xpu:1");
}

}  // namespace
}  // namespace gptq
