// Tasks run in order on one background thread.
#include "base/background.h"

#include <stdexcept>
#include <vector>

#include <gtest/gtest.h>

namespace gptq {
namespace {

TEST(BackgroundWorker, RunsTasksInTheirOrderOnOneOtherThread) {
  std::vector<int> done;
  std::vector<std::thread::id> threads;
  BackgroundWorker worker;
  std::future<int> last;
  for (int i = 0; i < 50; ++i) {
    last = worker.submit([&done, &threads, i] {
      done.push_back(i);
      threads.push_back(std::this_thread::get_id());
      return i;
    });
  }
  EXPECT_EQ(last.get(), 49);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(done[static_cast<size_t>(i)], i);
  for (const std::thread::id& thread : threads) {
    EXPECT_EQ(thread, threads[0]);
    EXPECT_NE(thread, std::this_thread::get_id());
  }
}

TEST(BackgroundWorker, AnExceptionGoesToWhoAsksAndTheNextTaskRuns) {
  BackgroundWorker worker;
  std::future<void> failed = worker.submit([] { throw std::runtime_error("no"); });
  std::future<int> next = worker.submit([] { return 7; });
  EXPECT_THROW(failed.get(), std::runtime_error);
  EXPECT_EQ(next.get(), 7);
}

TEST(BackgroundWorker, DropsWhatHasNotBegunWhenItEnds) {
  std::promise<void> begun, released;
  std::future<void> second;
  std::thread opener;
  {
    BackgroundWorker worker;
    worker.submit([&] {
      begun.set_value();
      released.get_future().wait();
    });
    second = worker.submit([] {});
    begun.get_future().wait();
    // The destructor clears the queue first, then waits for the running task.
    opener = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      released.set_value();
    });
  }
  opener.join();
  EXPECT_THROW(second.get(), std::future_error) << "a broken promise";
}

}  // namespace
}  // namespace gptq
