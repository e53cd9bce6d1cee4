// Many jobs in one process leave nothing behind: no descriptor, no thread, no memory. GPTQ_MANY_JOBS sets how many.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <stop_token>
#include <string>

#include <gtest/gtest.h>
#include <malloc.h>

#include "base/error.h"
#include "gptq/gptq.h"
#include "tiny_model.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;
using namespace testing_model;  // NOLINT: helpers of the fixture

int64_t entries_of(const char* folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}

struct Held {
  int64_t descriptors = entries_of("/proc/self/fd");
  int64_t threads = entries_of("/proc/self/task");
  int64_t heap = static_cast<int64_t>(mallinfo2().uordblks + mallinfo2().hblkhd);
  int64_t resident = resident_bytes();

  static int64_t resident_bytes() {
    int64_t all = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> all >> resident;
    return resident * 4096;
  }
};

// Whole runs of each kind, and runs that fail or are stopped.
void run_one(int n, Job job) {
  if (n % 3 == 1) job.recipe = recipe_preset("best");
  if (n % 3 == 2) job.recipe.average_bits = 3.5;
  job.recipe.group_size = 32;
  job.overwrite = true;
  if (n % 5 == 3) {
    job.recipe.group_size = 7;  // divides nothing
    EXPECT_THROW(quantize(job), InputError);
  } else if (n % 5 == 4) {
    std::stop_source source;
    job.stop = source.get_token();
    int events = 0;
    const auto stop = [&](const Progress&) {
      if (++events == 10) source.request_stop();
    };
    EXPECT_THROW(quantize(job, {.on_message = {}, .on_progress = stop}), Cancelled);
  } else {
    quantize(job);
  }
}

TEST(ManyJobs, InOneProcessLeaveNothingBehind) {
  const char* const asked = std::getenv("GPTQ_MANY_JOBS");
  const int jobs = asked != nullptr ? std::atoi(asked) : 60;
  constexpr int kFirst = 30;  // for what a process allocates once
  TemporaryFolder folder;
  write_tiny_model(folder / "model", {.blocks = 2});
  write_ids(folder / "ids.jsonl", 4, 16);
  Job job{.model = folder / "model", .output = folder / "out", .threads = 2};
  job.calibration = {.file = folder / "ids.jsonl", .samples = 4, .sequence_length = 16};
  for (int n = 0; n < kFirst; ++n) run_one(n, job);
  const Held before;
  for (int n = 0; n < jobs; ++n) run_one(n, job);
  const Held after;
  std::cout << jobs << " jobs: heap " << after.heap - before.heap << " bytes, resident "
            << after.resident - before.resident << " bytes more\n";
  EXPECT_EQ(after.descriptors, before.descriptors);
  EXPECT_EQ(after.threads, before.threads);
#if !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)  // which keep freed memory, and find leaks themselves
  EXPECT_LT(after.heap - before.heap, 64 << 10);
  EXPECT_LT(after.resident - before.resident, 16 << 20);
#endif
}

}  // namespace
}  // namespace gptq
