// The places of computing, weights and states do not change a byte of the output, and runs agree with their plans.
#include <chrono>

#include <gtest/gtest.h>

#include "base/error.h"
#include "gptq/gptq.h"
#include "tiny_model.h"

namespace gptq {
namespace {

using namespace testing_model;  // NOLINT: helpers of the fixture

class PlacedJob : public testing::Test {
 protected:
  void SetUp() override {
    write_tiny_model(folder_ / "model", {.blocks = 4});
    write_ids(folder_ / "ids.jsonl", 12, 40);
  }
  Job job(const std::string& output, const std::string& device_map = "sim:0",
          const std::string& max_memory = "") const {
    Job job{.model = folder_ / "model", .output = folder_ / output, .threads = 1};
    job.calibration = {.file = folder_ / "ids.jsonl", .samples = 12, .sequence_length = 40};
    job.recipe.group_size = 32;
    job.batch_size = 2;
    job.device_map = device_map;
    job.max_memory = max_memory;
    return job;
  }
  Report run(const Job& job) {
    told_.clear();
    return quantize(job, {.on_message = [&](Level level, const std::string& text) {
                      told_.push_back(level == Level::warning ? "warning: " + text : text);
                    }});
  }
  bool told(const std::string& text) const { return std::count(told_.begin(), told_.end(), text) == 1; }
  std::string refusal(const Job& job) const {
    try {
      quantize(job);
    } catch (const InputError& error) {
      EXPECT_FALSE(fs::exists(job.output));
      return error.what();
    }
    return "";
  }
  static std::string limit_of(const std::string& device, int64_t bytes) { return Json{{device, bytes}}.dump(); }
  // The memory that the error for a job says would suffice.
  int64_t smallest(const Job& job) const {
    const std::string message = refusal(job);
    const size_t place = message.find("needs at least ");
    return place == std::string::npos ? -1 : std::stoll(message.substr(message.find('(', place) + 1));
  }
  // A map that assigns the blocks to devices in turn.
  static std::string blocks_on(const std::vector<std::string>& devices) {
    Json map = {{"model.embed_tokens", devices[0]}, {"model.norm", devices[0]}, {"lm_head", devices.back()}};
    for (int block = 0; block < 4; ++block)
      map["model.layers." + std::to_string(block)] = devices[static_cast<size_t>(block) % devices.size()];
    return map.dump();
  }

  TemporaryFolder folder_;
  std::vector<std::string> told_;
};

TEST_F(PlacedJob, SeveralDevicesGiveTheSameBytesAsOne) {
  quantize(job("one"));
  const Report report = quantize(job("three", blocks_on({"sim:0", "sim:1", "sim:2"})));
  EXPECT_EQ(contents(folder_ / "one"), contents(folder_ / "three"));
  ASSERT_EQ(report.devices.size(), 3U);
  for (const Report::DeviceUse& device : report.devices) {
    EXPECT_GT(device.uploaded_bytes, 0) << device.name << " took part";
    EXPECT_GT(device.downloaded_bytes, 0) << device.name;
  }
}

TEST_F(PlacedJob, CpuEntriesVisitTheAcceleratorOneAfterTheOther) {
  quantize(job("one"));
  const Report alone = quantize(job("alone"));
  const Report report = run(job("visits", blocks_on({"sim:0", "cpu"})));
  EXPECT_EQ(contents(folder_ / "one"), contents(folder_ / "visits"));
  EXPECT_TRUE(told("warning: Cpu offload is not recommended. There might be some issues with the memory"));
  ASSERT_EQ(report.visits.size(), 2U) << "blocks 1 and 3";
  for (size_t i = 0; i < 2; ++i) {
    const Report::Visit& visit = report.visits[i];
    EXPECT_EQ(visit.module, "model.layers." + std::to_string(2 * i + 1));
    EXPECT_EQ(visit.device, "sim:0");
    const auto unit = std::find_if(report.plan.units.begin(), report.plan.units.end(),
                                   [&](const Plan::Unit& u) { return u.module == visit.module; });
    EXPECT_EQ(visit.bytes_in, unit->bytes) << "all of its weights went there";
    EXPECT_GT(visit.bytes_out, 0);
    EXPECT_LT(visit.bytes_out, visit.bytes_in) << "codes came back";
  }
  EXPECT_EQ(report.devices[0].peak_bytes, alone.devices[0].peak_bytes) << "one block at a time";
}

TEST_F(PlacedJob, AnOffloadedEmbeddingVisitsToo) {
  Json map = Json::parse(blocks_on({"sim:0"}));
  map["model.embed_tokens"] = "cpu";
  const Report report = quantize(job("out", map.dump()));
  ASSERT_EQ(report.visits.size(), 1U);
  EXPECT_EQ(report.visits[0].module, "model.embed_tokens");
  EXPECT_EQ(report.visits[0].bytes_in, (12 + 1) * 40 * 64 * 4) << "the rows of the tokens, and of those held back";
}

TEST_F(PlacedJob, TheSingleEntryCpuVisitsTheAcceleratorBlockByBlockOrStaysWhereThereIsNone) {
  quantize(job("sim"));
  Job offered = job("offered", R"({"": "cpu"})", R"({"sim:0": "1GB"})");
  offered.final_check = false;  // which warns of random weights
  const Report report = run(offered);
  EXPECT_EQ(report.devices[0].name, "sim:0");
  EXPECT_EQ(contents(folder_ / "sim"), contents(folder_ / "offered"));
  EXPECT_TRUE(report.warnings.empty());
  for (const std::string& text : told_) EXPECT_EQ(text.find("device_map was not initialized"), std::string::npos);
  const Report on_cpu = quantize(job("cpu", R"({"": "cpu"})"));
  EXPECT_EQ(on_cpu.devices.size(), 1U);
  EXPECT_EQ(on_cpu.devices[0].name, "cpu");
}

TEST_F(PlacedJob, WithoutAMapTheCurrentAcceleratorIsTakenAndSaid) {
  const Report report = run(job("accelerated", "", R"({"sim:1": "1GB", "sim:0": "1GB"})"));
  EXPECT_TRUE(told("The device_map was not initialized. Setting device_map to {'': 0}."));
  EXPECT_EQ(report.device_map, R"({"": "sim:0"})");
  EXPECT_EQ(report.devices[0].name, "sim:0");
  const Report on_cpu = run(job("cpu", ""));
  EXPECT_TRUE(told("The device_map was not initialized. Setting device_map to {'': 'cpu'}."));
  EXPECT_EQ(on_cpu.devices[0].name, "cpu");
}

TEST_F(PlacedJob, DiskIsRefusedBeforeAnyWeightIsRead) {
  auto tensors = tiny_tensors({.blocks = 4});
  for (TinyTensor& tensor : tensors) tensor.values[0] = NAN;  // reading any tensor would be another error
  fs::remove_all(folder_ / "model");
  write_model(folder_ / "model", tiny_config({.blocks = 4}), tensors);
  const std::string message = refusal(job("out", blocks_on({"sim:0", "disk"})));
  EXPECT_EQ(message.find("disk offload is not supported with GPTQ quantization"), 0U) << message;
  EXPECT_NE(message.find("\"model.layers.1\", \"model.layers.3\""), std::string::npos) << message;
}

TEST_F(PlacedJob, CachesAreClearedAfterTheInputsAfterEachBlockAndAtTheEndOnEveryDevice) {
  const Report report = quantize(job("out", blocks_on({"sim:0", "sim:1"})));
  std::vector<std::string> when;
  int64_t held = 0;
  for (const Report::Trim& trim : report.trims) {
    if (trim.device == "sim:0") when.push_back(trim.when);
    EXPECT_EQ(trim.held_after, 0) << trim.when << " on " << trim.device;
    held += trim.held_before;
  }
  EXPECT_EQ(when, (std::vector<std::string>{"first block's inputs captured", "model.layers.0", "model.layers.1",
                                            "model.layers.2", "model.layers.3", "end"}));
  EXPECT_EQ(report.trims.size(), 12U) << "on both";
  EXPECT_GT(held, 0) << "there was something to clear";
}

TEST_F(PlacedJob, ThePrecisionIsThatOfTheCheckpoint) {
  run(job("out"));
  EXPECT_TRUE(told("precision: float32 (use_cuda_fp16: false), because the checkpoint is stored in float32"));
  auto tensors = tiny_tensors();
  for (TinyTensor& tensor : tensors) {
    tensor.spec.dtype = "F16";
    std::vector<Half> halves;
    for (const float value : tensor.values) halves.emplace_back(value);
    tensor.values.resize((halves.size() + 1) / 2);
    std::memcpy(tensor.values.data(), halves.data(), halves.size() * 2);
  }
  write_model(folder_ / "half", tiny_config(), tensors);
  Job half = job("half-out");
  half.model = folder_ / "half";
  const Report report = run(half);
  EXPECT_EQ(report.compute_dtype, name_of(DType::f16));
  bool fp16_path = false;
  for (const std::string& text : told_) fp16_path = fp16_path || text.find("use_cuda_fp16: true") != std::string::npos;
  EXPECT_TRUE(fp16_path);
}

TEST_F(PlacedJob, StatesInHostMemoryGiveTheSameBytes) {
  const Report roomy = quantize(job("roomy"));
  EXPECT_EQ(roomy.states, "device");
  const Report host =
      quantize(job("host", "sim:0", limit_of("sim:0", smallest(job("none", "sim:0", limit_of("sim:0", 1))))));
  EXPECT_EQ(host.states, "host");
  EXPECT_LT(host.devices[0].peak_bytes, roomy.devices[0].peak_bytes);
  EXPECT_EQ(contents(folder_ / "roomy"), contents(folder_ / "host"));
}

TEST_F(PlacedJob, WithoutTrueSequentialAndWithRoundingTheSplitChangesNothingEither) {
  for (const bool rtn : {false, true}) {
    Job one = job(rtn ? "rtn-one" : "once-one"),
        three = job(rtn ? "rtn-three" : "once-three", blocks_on({"sim:0", "cpu", "sim:2"}));
    for (Job* each : {&one, &three}) {
      each->recipe.true_sequential = false;
      if (rtn) each->recipe.method = Method::rtn;
    }
    quantize(one);
    quantize(three);
    EXPECT_EQ(contents(one.output), contents(three.output));
  }
}

TEST_F(PlacedJob, TwoStreamsOfStatesGiveTheSameBytesWhereverTheyWait) {
  const auto best = [](Job job) {
    job.recipe = recipe_preset("best");
    job.recipe.group_size = 32;
    job.recipe.bits = 2;
    return job;
  };
  const Report roomy = quantize(best(job("roomy")));
  EXPECT_EQ(roomy.states, "device");
  EXPECT_EQ(roomy.linears.front().target_shift, 0) << "before the first step both streams are the same";
  EXPECT_GT(roomy.linears.back().target_shift, 0);
  quantize(best(job("split", blocks_on({"sim:0", "cpu", "sim:2"}))));
  EXPECT_EQ(contents(folder_ / "roomy"), contents(folder_ / "split"));
  const int64_t least = smallest(best(job("none", "sim:0", limit_of("sim:0", 1))));
  const Report tight = quantize(best(job("tight", "sim:0", limit_of("sim:0", least))));
  EXPECT_LT(tight.devices[0].peak_bytes, roomy.devices[0].peak_bytes);
  EXPECT_EQ(contents(folder_ / "roomy"), contents(folder_ / "tight"));
  for (int64_t limit = least; limit < roomy.devices[0].peak_bytes;
       limit += (roomy.devices[0].peak_bytes - least) / 5 + 1) {
    const Report report = quantize(best(job("between" + std::to_string(limit), "sim:0", limit_of("sim:0", limit))));
    EXPECT_EQ(contents(folder_ / "roomy"), contents(report.output)) << report.states << report.plan.keeps_inputs;
  }
}

TEST_F(PlacedJob, AQuantizedHeadIsTheSameOnAnyDevice) {
  const auto with_head = [](Job job, Method method = Method::gptq) {
    job.recipe.method = method;
    job.recipe.lm_head = true;
    return job;
  };
  quantize(with_head(job("one")));
  quantize(with_head(job("split", blocks_on({"sim:0", "cpu", "sim:2"}))));
  EXPECT_EQ(contents(folder_ / "one"), contents(folder_ / "split"));
  quantize(with_head(job("rounded"), Method::rtn));
  EXPECT_TRUE(Checkpoint(folder_ / "rounded").has("lm_head.qweight"));
}

TEST_F(PlacedJob, ChosenBitsAreTheSameWhereverProbesWait) {
  const auto average = [](Job job) {
    job.recipe.average_bits = 3.5;
    return job;
  };
  const Report roomy = quantize(average(job("roomy")));
  const int64_t peak = roomy.devices[0].peak_bytes;
  EXPECT_LE(peak, roomy.plan.accelerators[0].peak_bytes) << "memory is planned for either width";
  EXPECT_GT(static_cast<double>(peak), 0.9 * static_cast<double>(roomy.plan.accelerators[0].peak_bytes));
  quantize(average(job("split", blocks_on({"sim:0", "cpu", "sim:2"}))));
  EXPECT_EQ(contents(folder_ / "roomy"), contents(folder_ / "split"));
  const int64_t least = smallest(average(job("none", "sim:0", limit_of("sim:0", 1))));
  EXPECT_LT(least, peak);
  for (int64_t limit = least; limit < peak; limit += (peak - least) / 3 + 1) {
    const Report report = quantize(average(job("limit" + std::to_string(limit), "sim:0", limit_of("sim:0", limit))));
    EXPECT_EQ(contents(folder_ / "roomy"), contents(report.output)) << report.states;
  }
  Job spilled = average(job("spilled"));
  spilled.spill_dir = folder_.path();
  spilled.max_memory = limit_of("sim:0", least);
  quantize(spilled);
  EXPECT_EQ(contents(folder_ / "roomy"), contents(folder_ / "spilled"));
}

TEST_F(PlacedJob, TwoStreamsWithoutTrueSequentialPassTheSameBlocks) {
  Job one = job("one"), other = job("other", blocks_on({"sim:0", "cpu"}));
  for (Job* each : {&one, &other}) {
    each->recipe.targets = Targets::gptaq;
    each->recipe.true_sequential = false;
  }
  const Report report = quantize(one);
  quantize(other);
  EXPECT_GT(report.linears.back().target_shift, 0);
  EXPECT_EQ(contents(one.output), contents(other.output));
}

TEST_F(PlacedJob, PlannedDeviceMemoryAndOutputAreExact) {
  std::vector<Job> jobs = {job("a"), job("b", blocks_on({"sim:0", "sim:1"})), job("c"), job("d"), job("e"), job("f"),
                           job("g"), job("h", blocks_on({"sim:0", "sim:1"})), job("i")};
  for (const int bits : {4, 2}) {
    Recipe& recipe = jobs[bits == 4 ? 6 : 7].recipe = recipe_preset("best");
    recipe.bits = bits;
    recipe.group_size = 32;
  }
  jobs[8].recipe = recipe_preset("best");
  jobs[8].recipe.group_size = 32;
  jobs[8].recipe.lm_head = true;
  jobs[2].recipe.true_sequential = false;
  jobs[3].recipe = recipe_preset("paper");
  jobs[3].recipe.group_size = 32;
  jobs[3].recipe.sym = false;
  jobs[4].recipe.method = Method::rtn;
  jobs[5].max_shard_bytes = 20'000;
  jobs[5].recipe.bits = 8;
  for (const Job& job : jobs) {
    SCOPED_TRACE(job.output);
    const Report report = quantize(job);
    ASSERT_EQ(report.plan.accelerators.size(), report.devices.size());
    for (size_t i = 0; i < report.devices.size(); ++i) {
      EXPECT_EQ(report.plan.accelerators[i].name, report.devices[i].name);
      EXPECT_EQ(report.plan.accelerators[i].peak_bytes, report.devices[i].peak_bytes);
    }
    int64_t written = 0;
    for (const auto& file : fs::directory_iterator(job.output)) {
      if (file.path().extension() == ".safetensors") written += static_cast<int64_t>(file.file_size());
    }
    EXPECT_EQ(report.plan.output_bytes, written);
    EXPECT_EQ(report.output_bytes, written);
  }
}

TEST_F(PlacedJob, ALimitTooSmallForABlockIsRefusedWithTheSmallestThatWorks) {
  const std::string message = refusal(job("out", "sim:0", R"({"sim:0": "10kB"})"));
  EXPECT_NE(message.find("sim:0 may use 10 kB (10000 bytes)"), std::string::npos) << message;
  const int64_t least = smallest(job("out", "sim:0", limit_of("sim:0", 10'000)));
  EXPECT_NO_THROW(quantize(job("enough", "sim:0", limit_of("sim:0", least))));
  EXPECT_NE(refusal(job("less", "sim:0", limit_of("sim:0", least - 1))), "");
  quantize(job("roomy"));
  EXPECT_EQ(contents(folder_ / "roomy"), contents(folder_ / "enough"));
}

TEST_F(PlacedJob, HostMemoryTooSmallIsRefusedAndASpillFolderIsOffered) {
  Job large = job("out", "cpu", R"({"cpu": "1MB"})");
  large.calibration.samples = 12;
  const std::string message = refusal(large);
  EXPECT_NE(message.find("cpu may use 1 MB (1000000 bytes)"), std::string::npos) << message;
  EXPECT_NE(message.find("`spill_dir`"), std::string::npos) << message;
}

TEST_F(PlacedJob, APlanReadsNoWeightsAndWritesNothing) {
  auto tensors = tiny_tensors({.blocks = 4});
  for (TinyTensor& tensor : tensors) tensor.values[0] = NAN;
  fs::remove_all(folder_ / "model");
  write_model(folder_ / "model", tiny_config({.blocks = 4}), tensors);
  const Plan result = plan(job("out", blocks_on({"sim:0", "cpu"})));
  EXPECT_FALSE(fs::exists(folder_ / "out"));
  EXPECT_EQ(result.units.size(), 7U);
  EXPECT_EQ(result.units[2].computes_on, "sim:0");
  EXPECT_EQ(result.units[2].stays, "cpu");
  EXPECT_TRUE(result.units[2].visits);
  EXPECT_GT(result.seconds, 0);
  EXPECT_FALSE(result.loaders.empty());
  EXPECT_EQ(result.warnings.size(), 1U);
}

// Reading takes as long as computing; in sequence they would take twice as long; the first
// block's reading alone cannot be hidden. The best of five, as other work on the machine only adds time.
using PlacedJobTiming = PlacedJob;
TEST_F(PlacedJobTiming, ReadingIsHiddenBehindComputing) {
  write_tiny_model(folder_ / "deep", {.hidden = 128, .intermediate = 256, .blocks = 16, .heads = 8});
  write_ids(folder_ / "many.jsonl", 120, 128);
  Job plain = job("plain", "cpu");
  plain.model = folder_ / "deep";
  plain.batch_size = 0;
  plain.overwrite = true;
  plain.calibration = {.file = folder_ / "many.jsonl", .samples = 120, .sequence_length = 128};
  double best = 10;
  for (int attempt = 0; attempt < 5 && best >= 1.5; ++attempt) {
    const Report unlimited = quantize(plain);
    Job throttled = plain;
    throttled.output = folder_ / "throttled";
    throttled.max_read_rate = static_cast<int64_t>(static_cast<double>(unlimited.source_bytes) / unlimited.seconds);
    const Report limited = quantize(throttled);
    const double reading = static_cast<double>(limited.source_bytes) / static_cast<double>(throttled.max_read_rate);
    EXPECT_GE(limited.seconds, 0.9 * reading) << "the limit held";
    best = std::min(best, limited.seconds / std::max(reading, unlimited.seconds));
  }
  EXPECT_LT(best, 1.5) << "of the longer of both";
}

class PlacedEvaluation : public PlacedJob {
 protected:
  void SetUp() override {
    PlacedJob::SetUp();
    quantize(job("quantized"));
  }
  double perplexity_on(const std::string& device_map, const std::string& max_memory = "",
                       const char* text = "ids.jsonl") {
    told_.clear();
    return perplexity({.model = folder_ / "quantized",
                       .texts = {folder_ / text},
                       .device_map = device_map,
                       .max_memory = max_memory,
                       .context = 40,
                       .threads = 1},
                      {.on_message =
                           [&](Level level, const std::string& text) {
                             if (level == Level::message) told_.push_back(text);
                           }})
        .front()
        .perplexity;
  }
};

TEST_F(PlacedEvaluation, WithoutAMapTheCurrentAcceleratorIsTakenAndSaid) {
  const double on_sim = perplexity_on("sim:0");
  EXPECT_EQ(perplexity_on("", R"({"sim:0": "1GB"})"), on_sim);
  EXPECT_TRUE(told("The device_map was not initialized. Setting device_map to {'': 0}."));
  perplexity_on("");
  EXPECT_TRUE(told("The device_map was not initialized. Setting device_map to {'': 'cpu'}."));
}

TEST_F(PlacedEvaluation, DiskIsAllowedAndStreams) {
  EXPECT_EQ(perplexity_on(blocks_on({"sim:0", "disk"})), perplexity_on("sim:0"));
  EXPECT_EQ(perplexity_on("disk"), perplexity_on("cpu"));
}

TEST_F(PlacedEvaluation, SplitsAndOffloadGiveTheSamePerplexityInOneRoundAndInSeveral) {
  write_ids(folder_ / "long.jsonl", 1700, 40);  // more tokens than in one round
  for (const char* text : {"ids.jsonl", "long.jsonl"}) {
    const double one = perplexity_on("sim:0", "", text);
    EXPECT_EQ(perplexity_on(blocks_on({"sim:0", "sim:1", "cpu", "disk"}), "", text), one);
    EXPECT_EQ(perplexity_on("cpu", R"({"cpu": "600kB"})", text), perplexity_on("cpu", "", text))
        << "too little room for weights to stay";
  }
}

TEST_F(PlacedEvaluation, AnAcceleratorThatIsTooSmallIsNamed) {
  try {
    perplexity_on("sim:0", R"({"sim:0": "10kB"})");
    FAIL() << "it had room";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find("sim:0 is out of memory: "), std::string::npos) << error.what();
  }
}

TEST_F(PlacedEvaluation, ComparisonsTakeMapsToo) {
  const Evaluation evaluation{.model = folder_ / "model",
                              .texts = {folder_ / "ids.jsonl"},
                              .device_map = blocks_on({"sim:0", "sim:1"}),
                              .context = 40,
                              .threads = 1};
  const Comparison comparison = compare(evaluation, folder_ / "quantized").front();
  EXPECT_EQ(comparison.quantized.perplexity, perplexity_on("sim:0"));
  EXPECT_GT(comparison.mean_kl, 0);
}

}  // namespace
}  // namespace gptq
