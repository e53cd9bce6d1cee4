// Maps, limits and plans on the command line.
#include <cmath>

#include <signal.h>
#include <sys/resource.h>

#include "apps/cli.h"

namespace gptq {
namespace {

// Sanitizers would distort the measured memory.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// Private writable memory: the limit, and with what libraries reserve for buffers and threads' stacks.
constexpr rlim_t kAllowed = 330'000'000, kHardLimit = kAllowed + 280'000'000;

std::function<void()> with_data_limit(rlim_t bytes) {
  return [bytes] {
    const rlimit limit{bytes, bytes};
    setrlimit(RLIMIT_DATA, &limit);
  };
}

class PlacementCli : public Cli {
 protected:
  // A model and a calibration whose states and Hessians need about 800 MB.
  std::vector<std::string> wide(const std::string& output, const std::vector<std::string>& more = {}) {
    if (!fs::exists(folder_ / "wide")) {
      write_tiny_model(folder_ / "wide", {.intermediate = 4096, .blocks = 1});
      write_ids(folder_ / "wide.jsonl", 256, 128);
    }
    std::vector<std::string> arguments = {"quantize",
                                          folder_ / "wide",
                                          folder_ / output,
                                          "--calibration",
                                          folder_ / "wide.jsonl",
                                          "--samples",
                                          "256",
                                          "--sequence-length",
                                          "128",
                                          "--group-size",
                                          "32",
                                          "--threads",
                                          "1",
                                          "--report",
                                          folder_ / (output + ".json")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  Json report_of(const std::string& output) const { return read_json(folder_ / (output + ".json")); }
};

TEST_F(PlacementCli, BadMapsAreRefused) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> maps = {
      {R"({"": "disk"})", {"disk offload is not supported with GPTQ quantization", "stream"}},
      {R"({"": "cuda:0"})", {"cuda:0", "cpu"}},
      {R"({"": 0})", {"0", "cpu"}},
      {R"({"": -1})", {"-1"}},
      {R"({"": "npu:0"})", {"npu:0"}},
      {R"({"": "sim:0", "": "sim:1"})", {"twice"}},
      {R"({"model": "sim:0"})", {"lm_head"}},
      {R"({"": "sim:0", "model.layer.0": "cpu"})", {"model.layer.0", "model.layers.0"}},
      {R"({"": "sim:0", "model.layers.0.mlp": "sim:1"})", {"model.layers.0"}},
      {R"({"": "sim:0")", {"--device-map"}},
      {"nowhere.json", {"nowhere.json", "auto"}}};
  for (const auto& [map, words] : maps) {
    SCOPED_TRACE(map);
    expect_refusal(run(quantize({"--device-map", map})), words);
  }
  expect_source_untouched();
}

TEST_F(PlacementCli, BadSizesAreRefused) {
  for (const char* sizes :
       {R"({"cpu": "many"})", R"({"cpu": -5})", R"({"cpu": "1GB", "cpu": "2GB"})", R"({"cuda:7": "1GB"})", "3GB"}) {
    SCOPED_TRACE(sizes);
    expect_refusal(run(quantize({"--max-memory", sizes})), {"--max-memory"});
  }
  expect_refusal(run(quantize({"--max-memory", R"({"cpu": "1MB"})"})), {"cpu may use 1 MB", "needs at least"});
  expect_refusal(run(quantize({"--max-read-rate", "fast"})), {"fast"});
  expect_refusal(run(quantize({"--spill-dir", folder_ / "nowhere"})), {"--spill-dir", "nowhere"});
  expect_source_untouched();
}

TEST_F(PlacementCli, LogLinesAreVisibleUnlessQuiet) {
  const std::string line = "The device_map was not initialized. Setting device_map to {'': 'cpu'}.";
  Outcome outcome = run(quantize({"--overwrite"}));
  EXPECT_NE(outcome.err.find(line), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("plan: "), std::string::npos) << "the short form of the plan: " << outcome.err;
  outcome = run(quantize({"--overwrite", "--quiet"}));
  EXPECT_EQ(outcome.err, "");
  const std::string map = R"({"": "sim:0", "lm_head": "cpu"})";
  outcome = run(quantize({"--overwrite", "--device-map", map}));
  EXPECT_NE(outcome.err.find("warning: Cpu offload is not recommended. There might be some issues with the memory"),
            std::string::npos)
      << outcome.err;
}

TEST_F(PlacementCli, PlanTakesTheFlagsOfQuantizeAndPrintsWhatWillBe) {
  std::vector<std::string> arguments = quantize({"--device-map", R"({"": "sim:0", "model.layers.1": "cpu"})"});
  arguments[0] = "plan";
  Outcome outcome = run(arguments);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* word : {"cpu, visits sim:0", "peak", "bits per weight", "vLLM", "time", "Cpu offload"})
    EXPECT_NE(outcome.out.find(word), std::string::npos) << word << " is not in " << outcome.out;
  expect_nothing_left();
  arguments.push_back("--json");
  const Json plan = Json::parse(run(arguments).out);
  EXPECT_EQ(plan.at("accelerators").at(0).at("name"), "sim:0");
  EXPECT_GT(plan.at("output_bytes").get<int64_t>(), 0);
}

TEST_F(PlacementCli, DevicesListsTheCpuWithItsMemory) {
  const Outcome outcome = run({"devices", "--json"});
  const Json devices = Json::parse(outcome.out);
  EXPECT_EQ(devices.back().at("name"), "cpu");
  EXPECT_GT(devices.back().at("free_bytes").get<int64_t>(), 0);
  EXPECT_NE(run({"devices"}).out.find("free of"), std::string::npos);
}

TEST_F(PlacementCli, ADeviceThatRunsOutInTheMiddleIsNamedWithStepAndSizes) {
  if (kSanitized) GTEST_SKIP() << "sanitizers reserve more than the limit";
  const Outcome outcome = run(wide("out"), with_data_limit(kHardLimit));
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  for (const char* word :
       {"model.layers.", "step ", "cpu is out of memory: ", "bytes asked for, ", "in use", "--max-memory"})
    EXPECT_NE(outcome.err.find(word), std::string::npos) << word << " is not in " << outcome.err;
  expect_nothing_left();
}

// The operating system enforces the limit: a run that takes more fails as the one above.
TEST_F(PlacementCli, ALimitIsKeptUnderAHardLimitAndChangesNoByte) {
  if (kSanitized) GTEST_SKIP() << "sanitizers reserve more than the limit";
  fs::create_directory(folder_ / "spill");
  const Outcome limited =
      run(wide("limited", {"--max-memory", R"({"cpu": "330MB"})", "--spill-dir", folder_ / "spill"}),
          with_data_limit(kHardLimit));
  ASSERT_EQ(limited.code, 0) << limited.err;
  ASSERT_EQ(run(wide("unlimited")).code, 0);
  EXPECT_EQ(report_of("limited").at("states"), "spill");
  EXPECT_LE(report_of("limited").at("peak_memory_bytes").get<rlim_t>(), kAllowed);
  EXPECT_GT(report_of("unlimited").at("peak_memory_bytes").get<int64_t>(), kHardLimit);
  EXPECT_EQ(contents(folder_ / "limited"), contents(folder_ / "unlimited"));
}

TEST_F(PlacementCli, SpilledStatesGiveTheSameBytesOnTheCpuAndBehindAnAccelerator) {
  write_ids(folder_ / "ids.jsonl", 3000, 60);
  fs::create_directory(folder_ / "spill");
  struct Case {
    std::string device, preset;
    int64_t streams;
  };
  for (const auto& [device, preset, streams] :
       {Case{"cpu", "default", 1}, Case{"sim:0", "default", 1}, Case{"cpu", "best", 2}}) {
    SCOPED_TRACE(device + " " + preset);
    const int64_t states = streams * 3000 * 60 * (64 + 96) * 4;
    const std::vector<std::string> common = {"--samples",    "3000", "--sequence-length", "60",
                                             "--device-map", device, "--preset",          preset};
    const auto job = [&](const std::string& output, std::vector<std::string> more) {
      more.insert(more.end(), common.begin(), common.end());
      std::vector<std::string> arguments = quantize(more);
      arguments[2] = folder_ / output;
      return arguments;
    };
    std::vector<std::string> asked = job("none", {"--json"});
    asked[0] = "plan";
    const Json plan = Json::parse(run(asked).out);
    // Less memory than the states without inputs need, on the host and on the device.
    Json limits = {{"cpu", plan.at("host").at("peak_bytes").get<int64_t>() - states * 7 / 10}};
    if (device != "cpu")
      limits[device] = plan.at("accelerators").at(0).at("peak_bytes").get<int64_t>() - states * 7 / 10;
    const Outcome spilled = run(
        job("spilled-" + preset + device, {"--max-memory", limits.dump(), "--spill-dir", folder_ / "spill", "--json"}));
    ASSERT_EQ(spilled.code, 0) << spilled.err;
    const Json report = Json::parse(spilled.out);
    EXPECT_EQ(report.at("states"), "spill");
    EXPECT_EQ(report.at("spill_bytes"), states);
    EXPECT_TRUE(fs::is_empty(folder_ / "spill"));
    ASSERT_EQ(run(job("roomy-" + preset + device, {})).code, 0);
    EXPECT_EQ(contents(folder_ / ("roomy-" + preset + device)), contents(folder_ / ("spilled-" + preset + device)));
  }
}

TEST_F(PlacementCli, ASpillFolderThatIsFullIsSaidBeforeTheRun) {
  if (kSanitized) GTEST_SKIP() << "sanitizers take more than the limit";
  fs::create_directory(folder_ / "spill");
  const Outcome outcome =
      run(wide("out", {"--max-memory", R"({"cpu": "330MB"})", "--spill-dir", folder_ / "spill"}), [] {
        signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{50'000'000, 50'000'000};
        setrlimit(RLIMIT_FSIZE, &limit);
      });
  expect_refusal(outcome, {"--spill-dir", "the states need 545259520 bytes"});
  EXPECT_TRUE(fs::is_empty(folder_ / "spill"));
}

// The demo: the plan compared with the run. Time is the best of three.
using PlacementCliTiming = PlacementCli;
TEST_F(PlacementCliTiming, PlansComeTrue) {
  const fs::path demo = fs::path(GPTQ_SOURCE) / "demo";
  double memory = 0, time = 1;
  for (int attempt = 0; attempt < 3 && (attempt == 0 || std::abs(time) > 0.3); ++attempt) {
    const Outcome outcome =
        run({"quantize", demo / "model", folder_ / "out", "--overwrite", "--calibration", demo / "calibration.txt",
             "--sequence-length", "256", "--report", folder_ / "report.json"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    const Json report = read_json(folder_ / "report.json"), plan = report.at("plan");
    EXPECT_EQ(plan.at("output_bytes"), report.at("output_bytes"));
    const auto share = [](const Json& planned, const Json& happened) {
      return planned.get<double>() / happened.get<double>() - 1;
    };
    memory = share(plan.at("host").at("peak_bytes"), report.at("peak_memory_bytes"));
    time = share(plan.at("seconds"), report.at("seconds"));
  }
  if (kSanitized) GTEST_SKIP() << "sanitizers change memory and time";
  EXPECT_LE(std::abs(memory), 0.1);
  EXPECT_LE(std::abs(time), 0.3);
}

}  // namespace
}  // namespace gptq
