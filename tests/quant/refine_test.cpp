// Corrected targets, sweeps and refitted scales, each tested separately.
#include "quant/refine.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/error.h"
#include "quant/hessian.h"
#include "quant/solver.h"
#include "quant/targets.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

constexpr int64_t kRows = 12, kCols = 160, kTokens = 700;

// Weights and two streams of correlated inputs.
struct Problem {
  std::vector<float> W, X, Xo;
  Problem() {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < kRows * kCols; ++i) W.push_back(0.1F * normal(random));
    for (int64_t t = 0; t < kTokens; ++t) {
      float shared = normal(random);
      for (int64_t k = 0; k < kCols; ++k) {
        shared = 0.7F * shared + 0.7F * normal(random);
        X.push_back(shared * (1 + static_cast<float>(k % 5)));
        Xo.push_back(X.back() * (1 + 0.1F * normal(random)) + 0.05F * normal(random));
      }
    }
  }
  FactoredHessian factored(Backend& backend, const ResolvedRecipe& recipe) const {
    Hessian hessian(backend, kCols, true);
    hessian.add(to_device(backend, DType::f32, kTokens, kCols, X.data()),
                to_device(backend, DType::f32, kTokens, kCols, Xo.data()));
    return hessian.factor(recipe, "test");
  }
  Matrix weight(Backend& backend) const { return to_device(backend, DType::f32, kRows, kCols, W.data()); }
};

ResolvedRecipe recipe_for(int bits, const std::string& refine) {
  Recipe recipe;
  recipe.bits = bits;
  recipe.group_size = 32;
  recipe.refine = refine;
  return resolve(recipe);
}

TEST(Refinement, NeverRaisesTheLoss) {
  const auto backend = open_backend("cpu");
  const Problem problem;
  const Matrix W = problem.weight(*backend);
  for (const int bits : {2, 3, 4}) {
    const ResolvedRecipe recipe = recipe_for(bits, "c1 c1 r c2 r");
    const Quantized quantized = solve(*backend, W, problem.factored(*backend, resolve(recipe)), recipe);
    ASSERT_EQ(quantized.stages.size(), 7U);
    EXPECT_EQ(quantized.stages[0].first, "rounded");
    EXPECT_EQ(quantized.stages[1].first, "columns");
    EXPECT_EQ(quantized.stages[4].first, "refit");
    // After a refit scales are rounded to fp16: an error of 2^-11, squared, relative to the energy.
    for (size_t i = 1; i < quantized.stages.size(); ++i)
      EXPECT_LE(quantized.stages[i].second, quantized.stages[i - 1].second * 1.0001) << bits << " bits, stage " << i;
    EXPECT_LT(quantized.stages.back().second, 0.99 * quantized.stages[1].second) << bits;
    EXPECT_EQ(quantized.loss, quantized.stages.back().second);
  }
}

TEST(Refinement, OfScalesFindsThoseThatMadeTheWeights) {
  // Weights that are codes times other scales than the grid's: a refit finds those scales.
  const auto backend = open_backend("cpu");
  const Problem problem;
  const ResolvedRecipe recipe = recipe_for(3, "r");
  const FactoredHessian hessian = problem.factored(*backend, resolve(recipe));
  Quantized quantized = solve(*backend, problem.weight(*backend), hessian, resolve(recipe));
  std::vector<float> scales = to_host<float>(*backend, quantized.scales), others = scales;
  for (size_t i = 0; i < others.size(); ++i)
    others[i] = static_cast<float>(Half(scales[i] * (i % 2 == 0 ? 1.25F : 0.5F)));
  backend->upload(quantized.scales, others.data());
  Matrix T(*backend, DType::f32, kRows, kCols);
  dequantize(*backend, quantized, T);
  backend->upload(quantized.scales, scales.data());
  refit_scales(*backend, T, hessian.damped, true, quantized);
  const std::vector<float> fitted = to_host<float>(*backend, quantized.scales);
  for (size_t i = 0; i < others.size(); ++i) EXPECT_NEAR(fitted[i] / others[i], 1, 0x1p-10) << i;
}

TEST(Refinement, KeepsScalesThatNothingSpeaksFor) {
  // A group whose codes are all zero, and scales that would become negative although that is not allowed.
  const auto backend = open_backend("cpu");
  const Problem problem;
  const ResolvedRecipe recipe = recipe_for(3, "r");
  const FactoredHessian hessian = problem.factored(*backend, resolve(recipe));
  Quantized quantized = solve(*backend, problem.weight(*backend), hessian, resolve(recipe));
  std::vector<uint8_t> codes = to_host<uint8_t>(*backend, quantized.codes);
  for (int64_t k = 32; k < 64; ++k) codes[k] = 4;  // row 0, group 1: zero
  backend->upload(quantized.codes, codes.data());
  const std::vector<float> positive(static_cast<size_t>(kRows * kCols / 32), 0.02F);
  backend->upload(quantized.scales, positive.data());
  Matrix T(*backend, DType::f32, kRows, kCols), negative(*backend, DType::f32, kRows, kCols);
  dequantize(*backend, quantized, T);
  backend->run(ops::Clear{.y = negative});
  backend->run(ops::Add{.x = T, .factor = -1, .y = negative});
  refit_scales(*backend, negative, hessian.damped, false, quantized);
  for (const float scale : to_host<float>(*backend, quantized.scales)) EXPECT_EQ(scale, 0.02F);
  refit_scales(*backend, negative, hessian.damped, true, quantized);
  const std::vector<float> fitted = to_host<float>(*backend, quantized.scales);
  EXPECT_EQ(fitted[1], 0.02F) << "the group of zeros";
  EXPECT_NEAR(fitted[0], -0.02F, 1e-4);
}

// sum over tokens of x_i y_j
std::vector<double> product(const std::vector<float>& x, const std::vector<float>& y) {
  std::vector<double> sums(static_cast<size_t>(kCols * kCols));
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t i = 0; i < kCols; ++i) {
      for (int64_t j = 0; j < kCols; ++j)
        sums[i * kCols + j] += static_cast<double>(x[t * kCols + i]) * y[t * kCols + j];
    }
  }
  return sums;
}

TEST(Targets, AtAlphaOneGiveTheOriginalOutputsAsNearAsInputsAllow) {
  // The normal equations: T (X X' + damp) = W Xo X' + damp W.
  const auto backend = open_backend("cpu");
  const Problem problem;
  Recipe recipe = recipe_for(4, "none");
  recipe.targets = Targets::corrected;
  recipe.alpha = 1;
  const FactoredHessian hessian = problem.factored(*backend, resolve(recipe));
  const std::vector<float> T =
      to_host<float>(*backend, correct_targets(*backend, problem.weight(*backend), hessian, resolve(recipe)));
  const std::vector<double> H = product(problem.X, problem.X), original = product(problem.Xo, problem.X);
  double mean = 0;
  for (int64_t k = 0; k < kCols; ++k) mean += H[k * (kCols + 1)] / kCols;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t k = 0; k < kCols; ++k) {
      double left = 0.01 * mean * T[r * kCols + k], right = 0.01 * mean * problem.W[r * kCols + k], size = 0;
      for (int64_t j = 0; j < kCols; ++j) {
        left += T[r * kCols + j] * H[j * kCols + k];
        right += problem.W[r * kCols + j] * original[j * kCols + k];
        size += std::abs(T[r * kCols + j] * H[j * kCols + k]);
      }
      EXPECT_NEAR(left, right, 1e-4 * size);
    }
  }
}

TEST(Targets, OfGptaqAnswerOnlyForEarlierColumns) {
  // T = W + alpha W striu(dC U') U with inv(Hd) = U' U, in natural order, in double.
  const auto backend = open_backend("cpu");
  const Problem problem;
  Recipe recipe = recipe_for(4, "none");
  recipe.order = Order::natural;
  recipe.targets = Targets::gptaq;
  recipe.alpha = 0.5;
  const FactoredHessian hessian = problem.factored(*backend, resolve(recipe));
  const std::vector<float> T =
      to_host<float>(*backend, correct_targets(*backend, problem.weight(*backend), hessian, resolve(recipe)));
  const std::vector<float> F = to_host<float>(*backend, hessian.factor);  // U = inv(F')
  const std::vector<double> xx = product(problem.X, problem.X), ox = product(problem.Xo, problem.X);
  std::vector<double> U(static_cast<size_t>(kCols * kCols)), Z = U, P = U;
  const auto at = [](std::vector<double>& m, int64_t i, int64_t j) -> double& { return m[i * kCols + j]; };
  for (int64_t j = 0; j < kCols; ++j) {  // F' U = I, from the last row on
    for (int64_t i = j; i >= 0; --i) {
      double sum = i == j ? 1 : 0;
      for (int64_t k = i + 1; k <= j; ++k) sum -= static_cast<double>(F[k * kCols + i]) * at(U, k, j);
      at(U, i, j) = sum / F[i * kCols + i];
    }
  }
  for (int64_t i = 0; i < kCols; ++i) {
    for (int64_t j = i + 1; j < kCols; ++j) {
      for (int64_t k = j; k < kCols; ++k) at(Z, i, j) += (ox[i * kCols + k] - xx[i * kCols + k]) * at(U, j, k);
    }
  }
  for (int64_t i = 0; i < kCols; ++i) {
    for (int64_t k = i + 1; k < kCols; ++k) {
      for (int64_t j = k; j < kCols; ++j) at(P, i, j) += at(Z, i, k) * at(U, k, j);
    }
  }
  double moved = 0;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t j = 0; j < kCols; ++j) {
      double expected = problem.W[r * kCols + j];
      for (int64_t i = 0; i < j; ++i) expected += 0.5 * problem.W[r * kCols + i] * at(P, i, j);
      EXPECT_NEAR(T[r * kCols + j], expected, 1e-5);
      moved = std::max(moved, std::abs(expected - problem.W[r * kCols + j]));
    }
  }
  EXPECT_GT(moved, 1e-3);
}

TEST(Targets, OfEqualStreamsAreTheWeights) {
  const auto backend = open_backend("cpu");
  Problem problem;
  problem.Xo = problem.X;
  for (const Targets targets : {Targets::corrected, Targets::gptaq}) {
    Recipe recipe = recipe_for(4, "none");
    recipe.targets = targets;
    const FactoredHessian hessian = problem.factored(*backend, resolve(recipe));
    EXPECT_EQ(to_host<float>(*backend, correct_targets(*backend, problem.weight(*backend), hessian, resolve(recipe))),
              problem.W);
    EXPECT_EQ(solve(*backend, problem.weight(*backend), hessian, resolve(recipe)).target_shift, 0);
  }
}

TEST(Recipes, DecideByBitsWhatWasLeftOpen) {
  const auto decided = [](const std::string& preset, int bits) {
    Recipe recipe = recipe_preset(preset);
    recipe.bits = bits;
    return resolve(recipe);
  };
  EXPECT_FALSE(*decided("default", 4).signed_scales);
  EXPECT_EQ(decided("default", 4).refine, "none");
  EXPECT_TRUE(*decided("default", 3).signed_scales);
  EXPECT_EQ(decided("default", 3).refine, "c4");
  EXPECT_EQ(decided("best", 2).refine, "r c2 r c2 r");
  EXPECT_EQ(*decided("best", 2).alpha, 0.25);
  EXPECT_EQ(*decided("best", 4).alpha, 0.5);
  EXPECT_EQ(decided("best", 4).targets, Targets::corrected);
  for (const char* preset : {"paper", "group-aware"}) {
    EXPECT_FALSE(*decided(preset, 2).signed_scales) << preset;
    EXPECT_EQ(decided(preset, 2).refine, "none") << preset;
    EXPECT_EQ(decided(preset, 2).targets, Targets::weights) << preset;
  }
}

TEST(Recipes, RefuseWhatContradictsItself) {
  const auto refusal = [](const auto& change) {
    Recipe recipe;
    change(recipe);
    try {
      validate(recipe);
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal([](Recipe&) {}), "");
  EXPECT_NE(refusal([](Recipe& r) { r.refine = "r c10"; }).find("`refine`"), std::string::npos);
  EXPECT_NE(refusal([](Recipe& r) { r.signed_scales = true, r.sym = false; }).find("`signed_scales`"),
            std::string::npos);
  EXPECT_NE(refusal([](Recipe& r) { r.alpha = 0.5; }).find("`alpha`"), std::string::npos);
  EXPECT_NE(refusal([](Recipe& r) { r.alpha = 2, r.targets = Targets::corrected; }).find("`alpha` 2"),
            std::string::npos);
  EXPECT_NE(refusal([](Recipe& r) { r.method = Method::rtn, r.refine = "c1"; }).find("`method` rtn"),
            std::string::npos);
  EXPECT_NE(refusal([](Recipe& r) { r.desc_act = true, r.static_groups = false, r.refine = "r"; }).find("`desc_act`"),
            std::string::npos);
}

}  // namespace
}  // namespace gptq
