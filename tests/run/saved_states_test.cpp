// When states are saved.
#include "run/saved_states.h"

#include <gtest/gtest.h>

namespace gptq {
namespace {

using namespace std::chrono_literals;

constexpr int64_t kGigabyte = 1'000'000'000;

TEST(SavingSchedule, SavingTakesATwentiethOfTheTime) {
  const SavingSchedule::Clock::time_point start{};
  SavingSchedule schedule(start);
  EXPECT_FALSE(schedule.is_due(2 * kGigabyte, start + 39s)) << "a second a gigabyte is the guess";
  EXPECT_TRUE(schedule.is_due(2 * kGigabyte, start + 41s));
  schedule.saved(2 * kGigabyte, start + 41s, start + 51s);
  EXPECT_FALSE(schedule.is_due(2 * kGigabyte, start + 51s + 199s));
  EXPECT_TRUE(schedule.is_due(2 * kGigabyte, start + 51s + 201s));
  EXPECT_TRUE(schedule.is_due(kGigabyte, start + 51s + 101s)) << "of half as many";
}

TEST(SavingSchedule, SmallStatesAreSavedAtEachBlock) {
  const SavingSchedule::Clock::time_point start{};
  SavingSchedule schedule(start);
  EXPECT_TRUE(schedule.is_due(1 << 20, start));
  schedule.saved(1 << 20, start, start + 10s);
  EXPECT_TRUE(schedule.is_due(1 << 20, start + 10s));
}

}  // namespace
}  // namespace gptq
