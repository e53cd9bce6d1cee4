#include "base/parallel.h"

#include <atomic>
#include <set>
#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

namespace gptq {
namespace {

TEST(ThreadPool, RunsEveryIndexOnceForAnyNumberOfThreads) {
  for (const int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const int64_t count : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> calls(static_cast<size_t>(count));
      pool.for_each(count, [&](int64_t i) { ++calls[i]; });
      for (const auto& times : calls) EXPECT_EQ(times, 1);
    }
  }
}

TEST(ThreadPool, ReturnsOnlyWhenAllBodiesHaveEnded) {
  ThreadPool pool(4);
  for (int round = 0; round < 500; ++round) {
    std::atomic<int> ended = 0;
    pool.for_each(5, [&](int64_t) { ++ended; });
    ASSERT_EQ(ended, 5);
  }
}

TEST(ThreadPool, SharesTheWorkAmongThreads) {
  ThreadPool pool(2);
  std::atomic<int> inside = 0;
  // Each body waits for the other, so a single thread would never finish.
  pool.for_each(2, [&](int64_t) {
    ++inside;
    while (inside < 2) std::this_thread::yield();
  });
  EXPECT_EQ(inside, 2);
}

TEST(ThreadPool, OfOneThreadRunsInTheCallerInOrder) {
  ThreadPool pool(1);
  std::vector<int64_t> order;
  const auto caller = std::this_thread::get_id();
  pool.for_each(4, [&](int64_t i) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    order.push_back(i);
  });
  EXPECT_EQ(order, (std::vector<int64_t>{0, 1, 2, 3}));
}

TEST(ThreadPool, RethrowsAnExceptionAndGoesOnWorking) {
  for (const int threads : {1, 3}) {
    ThreadPool pool(threads);
    const auto throwing = [](int64_t i) {
      if (i == 10) throw std::runtime_error("ten");
    };
    for (int round = 0; round < 50; ++round) EXPECT_THROW(pool.for_each(100, throwing), std::runtime_error);
    std::atomic<int> calls = 0;
    pool.for_each(100, [&](int64_t) { ++calls; });
    EXPECT_EQ(calls, 100);
  }
}

TEST(ThreadPool, HasOneThreadPerCoreByDefault) {
  EXPECT_GE(available_cores(), 1);
  EXPECT_EQ(ThreadPool().size(), available_cores());
}

}  // namespace
}  // namespace gptq
