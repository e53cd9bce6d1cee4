// Runs that are killed at any instant and continued have the bytes of undisturbed ones.
#include <fstream>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "golden_families.h"
#include "gptq/gptq.h"
#include "tiny_model.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;
using namespace testing_model;  // NOLINT: helpers of the fixture

class Resume : public testing::Test {
 protected:
  void SetUp() override {
    write_tiny_model(folder_ / "model", {.blocks = 4});
    write_ids(folder_ / "ids.jsonl", 8, 24);
  }
  Job job() const {
    Job job{.model = folder_ / "model", .output = folder_ / "out", .threads = 1};
    job.calibration = {.file = folder_ / "ids.jsonl", .samples = 8, .sequence_length = 24};
    job.recipe.group_size = 32;
    job.batch_size = 3;
    job.resume = true;
    return job;
  }
  // Runs the job in a process that dies, like one that is killed, when progress is reported for the n-th time. Returns
  // whether it ended before; blocks: those that it took over from an earlier run.
  static bool ends_before(int n, const Job& job, int64_t* blocks = nullptr) {
    int ends[2] = {};
    if (pipe(ends) != 0) throw Error("no pipe");
    const pid_t child = fork();
    if (child == 0) {
      int64_t resumed = -1;
      try {
        int events = 0;
        resumed = quantize(job, {.on_message = {},
                                 .on_progress =
                                     [&](const Progress&) {
                                       if (++events == n) _exit(1);
                                     }})
                      .resumed_parts;
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        _exit(2);
      }
      _exit(write(ends[1], &resumed, sizeof resumed) == sizeof resumed ? 0 : 2);
    }
    close(ends[1]);
    int64_t resumed = 0;
    const bool told = read(ends[0], &resumed, sizeof resumed) == sizeof resumed;
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_NE(status, 2 << 8) << "the run failed";
    if (told && blocks != nullptr) *blocks = resumed;
    return status == 0;
  }
  // first_kills: the progress events at which the first run is killed; after the last of them, the next ones are too.
  void expect_the_same_when_killed(Job job, const std::vector<int>& first_kills = {23, 5}) {
    Job undisturbed = job;
    undisturbed.output = folder_ / "undisturbed";
    undisturbed.resume = undisturbed.checkpoint_states = false;
    quantize(undisturbed);
    const auto expected = contents(undisturbed.output);
    int kills = 0;
    int64_t most = 0;
    for (const int first : first_kills) {
      const int step = first == first_kills.back() ? 9 : 1000;
      for (int n = first, attempts = 0; attempts < 60; n += step, ++attempts) {
        int64_t resumed = 0;
        if (ends_before(n, job, &resumed)) {
          most = std::max(most, resumed);
          break;
        }
        EXPECT_FALSE(fs::exists(job.output)) << "no output that looks whole";
        ++kills;
      }
      ASSERT_TRUE(fs::exists(job.output));
      EXPECT_TRUE(contents(job.output) == expected) << "killed first at event " << first;
      EXPECT_FALSE(fs::exists(job.output + ".partial"));
      fs::remove_all(job.output);
    }
    fs::remove_all(undisturbed.output);
    EXPECT_GE(kills, 4);
    EXPECT_GE(most, 1) << "blocks were taken over";
  }
  TemporaryFolder folder_;
};

TEST_F(Resume, TheDefaultRecipeGivesTheSameBytes) { expect_the_same_when_killed(job(), {2, 9, 23, 41, 3}); }

TEST_F(Resume, AllPresetsGiveTheSameBytes) {
  for (const char* preset : {"best", "paper", "group-aware"}) {
    Job other = job();
    other.recipe = recipe_preset(preset);
    other.recipe.group_size = 32;
    SCOPED_TRACE(preset);
    expect_the_same_when_killed(other);
  }
}

TEST_F(Resume, ThreeBitsWithDescActAtOnceAndTheHeadGiveTheSameBytes) {
  Job other = job();
  other.recipe.bits = 3;
  other.recipe.desc_act = true;
  other.recipe.static_groups = false;
  other.recipe.true_sequential = false;
  other.recipe.lm_head = true;
  expect_the_same_when_killed(other);
}

TEST_F(Resume, RoundingGivesTheSameBytes) {
  Job other = job();
  other.recipe = {};
  other.recipe.method = Method::rtn;
  other.recipe.scale_search = ScaleSearch::mse;
  other.recipe.group_size = 32;
  Job undisturbed = other;
  undisturbed.output = folder_ / "undisturbed";
  quantize(undisturbed);
  EXPECT_FALSE(ends_before(3, other));
  EXPECT_TRUE(ends_before(1000, other));
  EXPECT_TRUE(contents(other.output) == contents(undisturbed.output));
}

TEST_F(Resume, SavedStatesGiveTheSameBytes) {
  Job other = job();
  other.checkpoint_states = true;
  other.recipe.targets = Targets::corrected;
  ASSERT_FALSE(ends_before(41, other));
  const fs::path left = other.output + ".partial";
  EXPECT_EQ(static_cast<int64_t>(fs::file_size(left / "states-0") + fs::file_size(left / "states-1")),
            plan(other).saved_states_bytes);
  fs::remove_all(left);
  expect_the_same_when_killed(other);
}

TEST_F(Resume, ChosenBitsGiveTheSameBytes) {
  Job other = job();
  other.recipe.average_bits = 3.5;
  Job undisturbed = other;
  undisturbed.output = folder_ / "undisturbed";
  quantize(undisturbed);
  int kills = 0;
  // Measuring takes most of the events; the journal knows its result before the first block.
  for (int n = 30; !ends_before(n, other); n += 40) {
    ASSERT_LT(++kills, 100);
  }
  EXPECT_GT(kills, 2);
  EXPECT_TRUE(contents(other.output) == contents(undisturbed.output));
}

TEST_F(Resume, SpilledStatesAndShardsGiveTheSameBytes) {
  Job other = job();
  other.spill_dir = folder_.path();
  other.max_shard_bytes = 20'000;
  other.recipe.checkpoint_format = "compressed-tensors";
  expect_the_same_when_killed(other);
}

TEST_F(Resume, AStopLeavesTheFolderAndItsRestIsDoneLater) {
  quantize([&] {
    Job undisturbed = job();
    undisturbed.output = folder_ / "undisturbed";
    return undisturbed;
  }());
  std::stop_source stop;
  Job stopped = job();
  stopped.stop = stop.get_token();
  std::vector<std::string> messages;
  const Listener listener{.on_message = [&](Level, const std::string& text) { messages.push_back(text); },
                          .on_progress =
                              [&](const Progress& progress) {
                                if (progress.block == 2) stop.request_stop();
                              }};
  EXPECT_THROW(quantize(stopped, listener), Cancelled);
  EXPECT_TRUE(fs::exists(folder_ / "out.partial"));
  EXPECT_NE(messages.back().find("out.partial has 2 of 4 blocks"), std::string::npos) << messages.back();
  EXPECT_GE(quantize(job()).resumed_parts, 1);
  EXPECT_TRUE(contents(folder_ / "out") == contents(folder_ / "undisturbed"));
}

TEST_F(Resume, TheReportIsThatOfAWholeRun) {
  Job undisturbed = job();
  undisturbed.output = folder_ / "undisturbed";
  const Report whole = quantize(undisturbed);
  ASSERT_FALSE(ends_before(35, job()));
  const Report resumed = quantize(job());
  ASSERT_EQ(resumed.linears.size(), whole.linears.size());
  for (size_t i = 0; i < whole.linears.size(); ++i) {
    EXPECT_EQ(resumed.linears[i].name, whole.linears[i].name);
    EXPECT_EQ(resumed.linears[i].block, whole.linears[i].block);
    EXPECT_EQ(resumed.linears[i].loss, whole.linears[i].loss);
    EXPECT_EQ(resumed.linears[i].scales.median, whole.linears[i].scales.median);
  }
  EXPECT_EQ(whole.resumed_parts, 0);
}

std::string refusal(const Job& job) {
  try {
    quantize(job);
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

TEST_F(Resume, AnotherJobIsRefusedWithTheDifference) {
  ASSERT_FALSE(ends_before(30, job()));
  const auto before = contents(folder_ / "out.partial");
  Job other = job();
  other.recipe.bits = 3;
  EXPECT_NE(refusal(other).find("recipe.bits was 4 and is 3"), std::string::npos) << refusal(other);
  other = job();
  other.batch_size = 2;
  EXPECT_NE(refusal(other).find("sequences of each batch was [3,3,2] and is [2,2,2,2]"), std::string::npos)
      << refusal(other);
  other = job();
  other.calibration.samples = 7;
  EXPECT_NE(refusal(other).find("calibration.sequences was 8 and is 7"), std::string::npos) << refusal(other);
  other = job();
  other.precision = "bf16";
  EXPECT_NE(refusal(other).find("precision was "), std::string::npos) << refusal(other);
  other = job();
  other.resume = false;
  EXPECT_NE(refusal(other).find("`resume`"), std::string::npos) << refusal(other);
  auto after = contents(folder_ / "out.partial");
  EXPECT_TRUE(after == before) << "a refusal touches nothing";
  std::vector<TinyTensor> tensors = tiny_tensors({.blocks = 4});
  std::swap(tensors[2], tensors[3]);
  write_model(folder_ / "model", tiny_config({.blocks = 4}), tensors);
  EXPECT_NE(refusal(job()).find("model.model.safetensors.header was "), std::string::npos) << refusal(job());
}

TEST_F(Resume, DamagedPartsAreComputedAgain) {
  Job undisturbed = job();
  undisturbed.output = folder_ / "undisturbed";
  quantize(undisturbed);
  ASSERT_FALSE(ends_before(60, job()));
  // The codes of block 0, as after a power cut without a sync.
  const fs::path shard = folder_ / "out.partial" / "model" / "model.safetensors";
  const SafetensorsFile file(shard);
  for (const StoredTensor& tensor : file.tensors()) {
    if (tensor.name != "model.layers.0.mlp.up_proj.qweight") continue;
    std::fstream damaged(shard, std::ios::in | std::ios::out | std::ios::binary);
    damaged.seekp(static_cast<std::streamoff>(tensor.offset));
    damaged << "garbage";
  }
  EXPECT_EQ(quantize(job()).resumed_parts, 0);
  EXPECT_TRUE(contents(folder_ / "out") == contents(folder_ / "undisturbed"));

  fs::remove_all(folder_ / "out");
  ASSERT_FALSE(ends_before(60, job()));
  std::ofstream(folder_ / "out.partial" / "journal", std::ios::app) << "0123 {\"part\": 3";  // a torn line
  EXPECT_GE(quantize(job()).resumed_parts, 1);
  EXPECT_TRUE(contents(folder_ / "out") == contents(folder_ / "undisturbed"));
}

TEST_F(Resume, OverwriteReplacesTheOldOutputOnlyAtTheEnd) {
  fs::create_directory(folder_ / "out");
  write_file(folder_ / "out" / "config.json", "old");
  Job other = job();
  EXPECT_THROW(quantize(other), ExistsError);
  other.overwrite = true;
  ASSERT_FALSE(ends_before(60, other));
  EXPECT_EQ(read_file(folder_ / "out" / "config.json"), "old");
  EXPECT_GE(quantize(other).resumed_parts, 1);
  EXPECT_TRUE(fs::exists(folder_ / "out" / "model.safetensors"));
}

TEST_F(Resume, WhatIsDoneIsSkipped) {
  Job other = job();
  other.skip_existing = true;
  EXPECT_FALSE(quantize(other).skipped);
  const auto before = contents(folder_ / "out");
  EXPECT_TRUE(quantize(other).skipped);
  other.recipe.bits = 8;
  try {
    quantize(other);
    ADD_FAILURE() << "another recipe";
  } catch (const ExistsError& error) {
    EXPECT_NE(std::string(error.what()).find("bits was 4 and is 8"), std::string::npos) << error.what();
  }
  EXPECT_TRUE(contents(folder_ / "out") == before);
  for (const char* preset : {"best", "paper"}) {
    other.recipe = recipe_preset(preset);
    other.recipe.group_size = 32;
    other.output = folder_ / preset;
    EXPECT_FALSE(quantize(other).skipped);
    EXPECT_TRUE(quantize(other).skipped) << preset;
  }
  other.recipe = {};
  other.recipe.group_size = 32;
  other.recipe.average_bits = 3.5;
  other.output = folder_ / "mixed";
  EXPECT_FALSE(quantize(other).skipped);
  EXPECT_TRUE(quantize(other).skipped);
  fs::resize_file(folder_ / "mixed" / "model.safetensors", 100);
  EXPECT_THROW(quantize(other), ExistsError) << "not whole";
}

// Every family: the states that pass dequantized codes are those of the run that made them.
class ResumeFamilies : public testing::TestWithParam<std::string> {};

TEST_P(ResumeFamilies, GiveTheSameBytes) {
  const TemporaryFolder folder;
  write_ids(folder / "ids.jsonl", 6, 16, 66);
  Job job{.model = fs::path(GPTQ_GOLDEN) / "families" / GetParam(),
          .output = folder / "whole",
          .threads = 1,
          .precision = "fp32"};
  job.calibration = {.file = folder / "ids.jsonl", .samples = 6, .sequence_length = 16};
  job.recipe.group_size = -1;
  job.recipe.targets = Targets::corrected;
  quantize(job);
  job.output = folder / "out";
  job.resume = true;
  std::stop_source stop;
  job.stop = stop.get_token();
  const Listener listener{.on_message = {}, .on_progress = [&](const Progress& progress) {
                            if (progress.block == progress.blocks - 1) stop.request_stop();
                          }};
  EXPECT_THROW(quantize(job, listener), Cancelled);
  job.stop = {};
  EXPECT_GE(quantize(job).resumed_parts, 0);
  EXPECT_TRUE(contents(folder / "out") == contents(folder / "whole"));
}

INSTANTIATE_TEST_SUITE_P(All, ResumeFamilies, testing::ValuesIn(family_names()), test_name);

}  // namespace
}  // namespace gptq
