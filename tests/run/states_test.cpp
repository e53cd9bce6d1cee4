// States are returned unchanged from every place of storage.
#include "run/states.h"

#include <fstream>

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/error.h"
#include "temporary_folder.h"

namespace gptq {
namespace {

constexpr int64_t kBatches = 5, kTokens = 6, kHidden = 8, kWidest = 24;

std::vector<float> values_of(Backend& backend, const Matrix& matrix) { return to_host<float>(backend, matrix); }

Batch make_batch(Backend& backend, int64_t index) {
  const std::vector<float> values(kTokens * kHidden, static_cast<float>(index));
  return {{0, kTokens}, to_device(backend, DType::f32, kTokens, kHidden, values.data()), {}};
}

// Some steps of a block on changing devices: make inputs from residuals, widen them, and add them back.
std::vector<std::vector<float>> residuals_after_steps(StateStore& states, Backend& first, Backend& second) {
  for (int64_t i = 0; i < kBatches; ++i) states.add(make_batch(first, i), first);
  const auto make_input = [](Backend& backend, int64_t width) {
    return [&backend, width](Batch& batch) {
      const std::vector<float> values = values_of(backend, batch.residual);
      const std::vector<float> input(static_cast<size_t>(kTokens * width), values[0] + 0.5F);
      batch.input = to_device(backend, DType::f32, kTokens, width, input.data());
    };
  };
  states.for_each(first, {.reads_input = false, .writes_residual = false}, make_input(first, kHidden));
  states.for_each(second, {.reads_residual = false, .writes_residual = false}, [&](Batch& batch) {
    const std::vector<float> values = values_of(second, batch.input);
    EXPECT_EQ(values.size(), static_cast<size_t>(kTokens * kHidden));
    const std::vector<float> wide(kTokens * kWidest, values[3] * 2);
    batch.input = to_device(second, DType::f32, kTokens, kWidest, wide.data());
  });
  states.for_each(second, {}, [&](Batch& batch) {
    const std::vector<float> input = values_of(second, batch.input);
    const std::vector<float> sum(kTokens * kHidden, values_of(second, batch.residual)[1] * 100 + input.back());
    second.upload(batch.residual, sum.data());
    batch.input = Matrix();
  });
  std::vector<std::vector<float>> residuals;
  states.for_each(first, {.reads_input = false, .writes_residual = false},
                  [&](Batch& batch) { residuals.push_back(values_of(first, batch.residual)); });
  return residuals;
}

std::vector<std::vector<float>> expected() {
  std::vector<std::vector<float>> residuals;
  for (int64_t i = 0; i < kBatches; ++i) {
    const auto value = static_cast<float>(i);
    residuals.emplace_back(static_cast<size_t>(kTokens * kHidden), value * 100 + (value + 0.5F) * 2);
  }
  return residuals;
}

TEST(StateStore, StatesFollowTheBlockFromDeviceToDevice) {
  const auto first = open_backend("sim:0", {.threads = 1}), second = open_backend("sim:1", {.threads = 1});
  StateStore states(StatePlace::device);
  EXPECT_EQ(residuals_after_steps(states, *first, *second), expected());
  EXPECT_GT(states.bytes_moved(), 0);
}

TEST(StateStore, OnOneDeviceNothingMoves) {
  const auto backend = open_backend("sim:0", {.threads = 1});
  StateStore states(StatePlace::device);
  EXPECT_EQ(residuals_after_steps(states, *backend, *backend), expected());
  EXPECT_EQ(states.bytes_moved(), 0);
}

TEST(StateStore, InHostMemoryOneBatchIsOnTheDeviceAtATime) {
  const auto first = open_backend("sim:0", {.threads = 1}), second = open_backend("sim:1", {.threads = 1});
  StateStore states(StatePlace::host);
  EXPECT_EQ(residuals_after_steps(states, *first, *second), expected());
  second->trim();
  EXPECT_EQ(second->memory_use().bytes, 0);
  EXPECT_LT(second->memory_use().peak, 3 * kTokens * (kHidden + kWidest) * 4);
}

TEST(StateStore, InAFileStatesAreTheSameAndNoFileIsSeenDuringOrAfter) {
  const TemporaryFolder folder;
  const auto backend = open_backend("cpu", {.threads = 1});
  {
    StateStore states(folder.path(), kBatches * kTokens, kHidden * 4, kWidest * 4);
    EXPECT_EQ(states.spill_bytes(), kBatches * kTokens * (kHidden + kWidest) * 4);
    EXPECT_EQ(residuals_after_steps(states, *backend, *backend), expected());
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(StateStore, AVisitThatOnlyLooksLeavesAllAsItWas) {
  const TemporaryFolder folder;
  const auto backend = open_backend("cpu", {.threads = 1});
  StateStore states(folder.path(), kBatches * kTokens, kHidden * 4, kWidest * 4);
  for (int64_t i = 0; i < kBatches; ++i) states.add(make_batch(*backend, i), *backend);
  for (int round = 0; round < 2; ++round) {
    float next = 0;
    states.for_each(*backend, {.reads_input = false, .writes_residual = false}, [&](Batch& batch) {
      EXPECT_EQ(values_of(*backend, batch.residual)[0], next++);
      backend->run(ops::Clear{.y = batch.residual});  // of the copy
    });
    EXPECT_EQ(next, kBatches);
  }
}

TEST(StateStore, AFolderThatIsMissingOrRefusesOrIsFullIsAnInputErrorThatNamesTheFlag) {
  const TemporaryFolder folder;
  const auto message = [](const std::filesystem::path& path, int64_t tokens) -> std::string {
    try {
      StateStore(path, tokens, 1 << 20, 1 << 20);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  const std::string missing = message(folder / "nowhere", 1);
  EXPECT_NE(missing.find("`spill_dir`"), std::string::npos) << missing;
  EXPECT_NE(missing.find("nowhere"), std::string::npos) << missing;
  const std::string full = message(folder.path(), int64_t{1} << 30);  // 2 PiB
  EXPECT_NE(full.find("`spill_dir`"), std::string::npos) << full;
  EXPECT_NE(full.find("2251799813685248 bytes"), std::string::npos) << full;
}

}  // namespace
}  // namespace gptq
