// Hessians of parts of the calibration, merged.
#include "quant/hessian.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "backend/registry.h"

namespace gptq {
namespace {

constexpr int64_t kWidth = 48;

// Tokens of small integers, whose products sum exactly in any order.
std::vector<float> whole_numbers(int64_t tokens, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> values;
  for (int64_t i = 0; i < tokens * kWidth; ++i)
    values.push_back(static_cast<float>(static_cast<int>(random() % 17) - 8));
  return values;
}

struct Chunk {
  int64_t tokens = 0;
  std::vector<float> x, original;
};

Chunk chunk(int64_t tokens, unsigned seed) {
  return {tokens, whole_numbers(tokens, seed), whole_numbers(tokens, seed + 1000)};
}

void add(Hessian& hessian, Backend& backend, const Chunk& part, bool with_cross) {
  const Matrix x = to_device(backend, DType::f32, part.tokens, kWidth, part.x.data());
  const Matrix original = to_device(backend, DType::f32, part.tokens, kWidth, part.original.data());
  with_cross ? hessian.add(x, original) : hessian.add(x);
}

void expect_equal(Hessian& merged, Hessian& whole, Backend& backend) {
  EXPECT_EQ(merged.tokens(), whole.tokens());
  EXPECT_EQ(merged.dropped(), whole.dropped());
  const ResolvedRecipe recipe = resolve({.group_size = 16, .refine = "c1"});
  const FactoredHessian a = merged.factor(recipe, "merged"), b = whole.factor(recipe, "whole");
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.order, b.order);
  EXPECT_EQ(a.dead, b.dead);
  EXPECT_EQ(a.damp_percent, b.damp_percent);
  const auto host = [&](const Matrix& matrix) {
    return matrix.empty() ? std::vector<float>() : to_host<float>(backend, matrix);
  };
  EXPECT_EQ(host(a.factor), host(b.factor));
  EXPECT_EQ(host(a.importance), host(b.importance));
  EXPECT_EQ(host(a.damped), host(b.damped));
  EXPECT_EQ(host(a.cross), host(b.cross));
}

TEST(Hessian, OfTwoHalvesMergedIsThatOfAllChunks) {
  const auto backend = open_backend("cpu"), second = open_backend("cpu");
  for (const bool with_cross : {false, true}) {
    for (Backend* other : {backend.get(), second.get()}) {
      std::vector<Chunk> chunks;
      for (unsigned i = 0; i < 4; ++i) chunks.push_back(chunk(40 + 3 * i, i));
      for (Chunk& part : chunks) {
        for (int64_t t = 0; t < part.tokens; ++t) part.x[t * kWidth + 5] = part.original[t * kWidth + 5] = 0;  // dead
      }
      Hessian whole(*backend, kWidth, with_cross), first(*backend, kWidth, with_cross),
          rest(*other, kWidth, with_cross);
      for (size_t i = 0; i < chunks.size(); ++i) {
        add(whole, *backend, chunks[i], with_cross);
        i < 2 ? add(first, *backend, chunks[i], with_cross) : add(rest, *other, chunks[i], with_cross);
      }
      first.merge(rest);
      expect_equal(first, whole, *backend);
    }
  }
}

TEST(Hessian, MergedKeepsTheCountsOfBoth) {
  const auto backend = open_backend("cpu");
  Chunk good = chunk(50, 7), bad = chunk(60, 8);
  bad.x[3 * kWidth + 1] = std::nanf("");
  bad.x[9 * kWidth] = INFINITY;
  good.x[0] = -INFINITY;
  Hessian a(*backend, kWidth), b(*backend, kWidth), whole(*backend, kWidth);
  add(a, *backend, good, false);
  add(b, *backend, bad, false);
  add(whole, *backend, good, false);
  add(whole, *backend, bad, false);
  a.merge(b);
  EXPECT_EQ(a.tokens(), 110);
  EXPECT_EQ(a.dropped(), 3);
  expect_equal(a, whole, *backend);
  EXPECT_EQ(b.tokens(), 60) << "the other stays as it is";
  EXPECT_EQ(b.dropped(), 2);
}

}  // namespace
}  // namespace gptq
