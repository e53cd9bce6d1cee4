#include "quant/bit_choice.h"

#include <random>

#include <gtest/gtest.h>

namespace gptq {
namespace {

double mean_bits(const std::vector<BitUnit>& units, const std::vector<size_t>& choice) {
  double bits = 0, weights = 0;
  for (size_t i = 0; i < units.size(); ++i) {
    bits += static_cast<double>(units[i].weights) * units[i].candidates[choice[i]].bits;
    weights += static_cast<double>(units[i].weights);
  }
  return bits / weights;
}

double loss_of(const std::vector<BitUnit>& units, const std::vector<size_t>& choice) {
  double loss = 0;
  for (size_t i = 0; i < units.size(); ++i) loss += units[i].candidates[choice[i]].loss;
  return loss;
}

// The least loss of all choices within the average.
double least_loss(const std::vector<BitUnit>& units, double average) {
  std::vector<size_t> choice(units.size(), 0);
  double least = loss_of(units, choice);
  for (;;) {
    size_t i = 0;
    while (i < units.size() && ++choice[i] == units[i].candidates.size()) choice[i++] = 0;
    if (i == units.size()) return least;
    if (mean_bits(units, choice) <= average + 1e-9) least = std::min(least, loss_of(units, choice));
  }
}

TEST(BitChoice, StaysWithinTheAverageAndLosesLittleMoreThanTheLeast) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> size(1, 5), scale(0.1, 10);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<BitUnit> units;
    double largest_step = 0;
    for (int i = 0; i < 7; ++i) {
      const double base = scale(random);
      units.push_back({static_cast<int64_t>(100 * size(random)), {{3, base}, {4, base * 0.3}, {8, base * 0.001}}});
      largest_step = std::max(largest_step, base);
    }
    for (const double average : {3.0, 3.3, 3.5, 4.0, 5.7, 8.0}) {
      const std::vector<size_t> choice = choose_bits(units, average);
      EXPECT_LE(mean_bits(units, choice), average + 1e-9);
      // Greedy along the hull misses the optimum by less than one step that does not fit.
      EXPECT_LE(loss_of(units, choice), least_loss(units, average) + largest_step);
    }
    EXPECT_EQ(choose_bits(units, 3), std::vector<size_t>(units.size(), 0));
    EXPECT_EQ(choose_bits(units, 8), std::vector<size_t>(units.size(), 2));
  }
}

TEST(BitChoice, EqualUnitsGiveTheOptimum) {
  std::mt19937 random(3);
  std::uniform_real_distribution<double> scale(0.1, 10);
  std::vector<BitUnit> units;
  for (int i = 0; i < 8; ++i) {
    const double base = scale(random);
    units.push_back({100, {{3, base}, {4, base * 0.3}}});
  }
  for (const double average : {3.25, 3.5, 3.75})
    EXPECT_DOUBLE_EQ(loss_of(units, choose_bits(units, average)), least_loss(units, average));
}

TEST(BitChoice, WhatGainsNothingGetsNothing) {
  const std::vector<BitUnit> units = {{100, {{3, 1.0}, {4, 1.5}, {8, 2.0}}}, {100, {{3, 1.0}, {4, 0.9}, {8, 0.1}}}};
  EXPECT_EQ(choose_bits(units, 6), (std::vector<size_t>{0, 2})) << "the second skips 4, which is above its hull";
}

TEST(BitChoice, TheFewestBitsStayWhereTheyAreTooMany) {
  EXPECT_EQ(choose_bits({{100, {{3, 1.0}, {4, 0.1}}}}, 2.5), (std::vector<size_t>{0}));
}

}  // namespace
}  // namespace gptq
