// The fast solver, compared with the paper's loop in double precision, and properties of all its results.
#include "quant/solver.h"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/error.h"
#include "quant/paper.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

// Inputs with correlated features of very different sizes, as in networks.
struct Problem {
  int64_t rows, cols, tokens;
  std::vector<float> W, X;

  Problem(int64_t rows, int64_t cols, int64_t tokens, unsigned seed, int64_t dead = -1)
      : rows(rows), cols(cols), tokens(tokens) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < rows * cols; ++i) W.push_back(0.1F * normal(random));
    std::vector<float> size(static_cast<size_t>(cols));
    for (float& s : size) s = std::exp(normal(random));
    for (int64_t t = 0; t < tokens; ++t) {
      float shared = normal(random);
      for (int64_t k = 0; k < cols; ++k) {
        shared = 0.7F * shared + 0.7F * normal(random);
        X.push_back(k == dead ? 0.0F : size[k] * shared);
      }
    }
  }

  // sum x x' in double
  std::vector<double> hessian() const {
    std::vector<double> H(static_cast<size_t>(cols * cols));
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < cols; ++i) {
        for (int64_t j = 0; j < cols; ++j) H[i * cols + j] += static_cast<double>(X[t * cols + i]) * X[t * cols + j];
      }
    }
    return H;
  }

  Quantized solve_with(Backend& backend, const Recipe& recipe) const {
    const Matrix x = to_device(backend, DType::f32, tokens, cols, X.data());
    const Matrix w = to_device(backend, DType::f32, rows, cols, W.data());
    Hessian hessian(backend, cols);
    hessian.add(x);
    return solve(backend, w, hessian.factor(resolve(recipe), "test"), resolve(recipe));
  }

  // mean over tokens of |(W - Q) x|^2
  double output_error(Backend& backend, const Quantized& quantized) const {
    Matrix q(backend, DType::f32, rows, cols);
    dequantize(backend, quantized, q);
    const std::vector<float> Q = to_host<float>(backend, q);
    double sum = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        double y = 0;
        for (int64_t k = 0; k < cols; ++k)
          y += (static_cast<double>(W[r * cols + k]) - Q[r * cols + k]) * X[t * cols + k];
        sum += y * y;
      }
    }
    return sum / static_cast<double>(tokens);
  }
};

Recipe paper_recipe(int bits, int64_t group_size, bool sym) {
  Recipe recipe = recipe_preset("paper");
  recipe.bits = bits;
  recipe.group_size = group_size;
  recipe.sym = sym;
  return recipe;
}

double share_equal(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  int64_t equal = 0;
  for (size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i] ? 1 : 0;
  return static_cast<double>(equal) / static_cast<double>(a.size());
}

struct PaperCase {
  int64_t rows, cols;
  int bits;
  int64_t group_size;
  bool sym;
};

std::string name_of_case(const testing::TestParamInfo<PaperCase>& info) {
  const PaperCase& c = info.param;
  const std::string group = c.group_size == -1 ? "all" : std::to_string(c.group_size);
  return std::to_string(c.rows) + "x" + std::to_string(c.cols) + "_" + std::to_string(c.bits) + "bits_group_" + group +
         (c.sym ? "_sym" : "_asym");
}

class SolverAgainstPaper : public testing::TestWithParam<PaperCase> {};

TEST_P(SolverAgainstPaper, GivesThePapersCodesAndLoss) {
  const auto [rows, cols, bits, group_size, sym] = GetParam();
  const Problem problem(rows, cols, 4 * cols, 11);
  const auto backend = open_backend("cpu");
  const Quantized fast = problem.solve_with(*backend, paper_recipe(bits, group_size, sym));

  const std::vector<double> W(problem.W.begin(), problem.W.end());
  const PaperResult oracle =
      paper_gptq(W, problem.hessian(), rows, cols, {.bits = bits, .group_size = group_size, .sym = sym});
  // f32 targets differ from the oracle's by about 1e-5 of a step, so a code may differ if its target is that close to a
  // tie, and then the rest of its row: well under one row in a hundred.
  EXPECT_GE(share_equal(to_host<uint8_t>(*backend, fast.codes), oracle.codes), 0.995);
  EXPECT_GE(share_equal(to_host<uint8_t>(*backend, fast.zeros), oracle.zeros), 0.99);
  EXPECT_NEAR(fast.loss * static_cast<double>(problem.tokens) / oracle.loss, 1, 1e-3);
}

INSTANTIATE_TEST_SUITE_P(Shapes, SolverAgainstPaper,
                         testing::Values(PaperCase{24, 160, 4, 32, true}, PaperCase{17, 96, 3, -1, false},
                                         PaperCase{8, 256, 2, 64, true}, PaperCase{12, 192, 8, 96, true},
                                         PaperCase{33, 128, 4, 16, false}, PaperCase{6, 512, 4, 256, true},
                                         PaperCase{1, 64, 4, 64, true}, PaperCase{40, 144, 3, 48, true}),
                         name_of_case);

TEST(Solver, TreatsDeadColumnsAsThePaperDoes) {
  const Problem problem(16, 128, 600, 3, /*dead=*/40);
  const auto backend = open_backend("cpu");
  const Quantized fast = problem.solve_with(*backend, paper_recipe(4, 32, true));
  std::vector<double> H = problem.hessian();
  for (double& h : H) h *= 2.0 / 600;  // the paper's scale, with 1 on a dead column's diagonal
  const PaperResult oracle =
      paper_gptq(std::vector<double>(problem.W.begin(), problem.W.end()), H, 16, 128, {.group_size = 32});
  EXPECT_GE(share_equal(to_host<uint8_t>(*backend, fast.codes), oracle.codes), 0.995);
  const std::vector<uint8_t> codes = to_host<uint8_t>(*backend, fast.codes);
  for (int64_t r = 0; r < 16; ++r) EXPECT_EQ(codes[r * 128 + 40], 8) << "a dead column's weights become zero";
}

// Dead columns take no part in solving: others have the codes that they have beside zeros.
TEST(Solver, RoundsDeadColumnsToNearestOnTheGridOfTheirGroups) {
  const Problem problem(16, 128, 600, 3, /*dead=*/40);
  const auto backend = open_backend("cpu");
  for (const bool desc_act : {false, true}) {
    for (const char* refine : {"none", "c2"}) {
      Recipe recipe;
      recipe.group_size = 32;
      recipe.desc_act = desc_act;
      recipe.static_groups = !desc_act;
      recipe.refine = refine;
      const Quantized rounded = problem.solve_with(*backend, recipe);
      recipe.round_dead_columns = false;
      const Quantized zeroed = problem.solve_with(*backend, recipe);
      const auto codes = to_host<uint8_t>(*backend, rounded.codes), others = to_host<uint8_t>(*backend, zeroed.codes);
      const auto scales = to_host<float>(*backend, rounded.scales);
      EXPECT_EQ(scales, to_host<float>(*backend, zeroed.scales));
      EXPECT_EQ(rounded.loss, zeroed.loss);
      const int32_t group = rounded.g_idx[40];
      for (int64_t r = 0; r < 16; ++r) {
        for (int64_t k = 0; k < 128; ++k) {
          if (k == 40) continue;
          ASSERT_EQ(codes[r * 128 + k], others[r * 128 + k]) << r << ", " << k;
        }
        EXPECT_EQ(others[r * 128 + 40], 8);
        const float steps = problem.W[r * 128 + 40] / scales[r * 4 + group];
        EXPECT_EQ(codes[r * 128 + 40], std::clamp(std::nearbyint(steps) + 8, 0.0F, 15.0F)) << r;
      }
    }
  }
}

TEST(Solver, GroupsWithoutALiveColumnHaveAGridOfTheirOwn) {
  Problem problem(8, 64, 300, 4);
  for (int64_t t = 0; t < 300; ++t) std::fill_n(problem.X.begin() + t * 64 + 32, 32, 0.0F);
  const auto backend = open_backend("cpu");
  Recipe recipe;
  recipe.group_size = 32;
  recipe.scale_search = ScaleSearch::minmax;
  const Quantized solved = problem.solve_with(*backend, recipe);
  const Matrix w = to_device(*backend, DType::f32, 8, 64, problem.W.data());
  const Quantized rounded = round_to_nearest(*backend, w, resolve(recipe));
  const auto codes = to_host<uint8_t>(*backend, solved.codes), nearest = to_host<uint8_t>(*backend, rounded.codes);
  for (int64_t r = 0; r < 8; ++r) {
    for (int64_t k = 32; k < 64; ++k) EXPECT_EQ(codes[r * 64 + k], nearest[r * 64 + k]) << r << ", " << k;
  }
}

TEST(Solver, ReportsTheOutputErrorThatItCauses) {
  const Problem problem(20, 128, 2000, 5);
  const auto backend = open_backend("cpu");
  for (const char* preset : {"default", "paper", "group-aware"}) {
    Recipe recipe = recipe_preset(preset);
    recipe.group_size = 32;
    recipe.damp_percent = 1e-4;  // makes the damping's share of the loss small
    const Quantized quantized = problem.solve_with(*backend, recipe);
    EXPECT_NEAR(quantized.loss / problem.output_error(*backend, quantized), 1, 0.02) << preset;
    EXPECT_GT(quantized.error, 0) << preset;
    EXPECT_LT(quantized.error, 0.05) << preset;
  }
}

TEST(Solver, IsNeverWorseThanRoundingToNearestOnTheSameGrid) {
  const auto backend = open_backend("cpu");
  for (const int bits : {2, 3, 4, 8}) {
    const Problem problem(24, 192, 1000, static_cast<unsigned>(bits));
    Recipe recipe;
    recipe.bits = bits;
    recipe.group_size = 64;
    recipe.scale_search = ScaleSearch::minmax;
    const Matrix w = to_device(*backend, DType::f32, problem.rows, problem.cols, problem.W.data());
    const Quantized rounded = round_to_nearest(*backend, w, resolve(recipe)),
                    solved = problem.solve_with(*backend, recipe);
    EXPECT_LE(problem.output_error(*backend, solved), problem.output_error(*backend, rounded)) << bits;
  }
}

TEST(Solver, DefaultRecipeBeatsThePapersOnOutputError) {
  const auto backend = open_backend("cpu");
  const Problem problem(48, 256, 2000, 9);
  Recipe standard;
  standard.group_size = 64;
  const double ours = problem.output_error(*backend, problem.solve_with(*backend, standard));
  const double papers = problem.output_error(*backend, problem.solve_with(*backend, paper_recipe(4, 64, true)));
  EXPECT_LT(ours, papers);
}

TEST(Solver, KeepsGroupIndicesSequentialUnlessDescActAsksOtherwise) {
  const auto backend = open_backend("cpu");
  const Problem problem(8, 128, 500, 21);
  for (const char* preset : {"default", "paper", "group-aware"}) {
    Recipe recipe = recipe_preset(preset);
    recipe.group_size = 32;
    const Quantized quantized = problem.solve_with(*backend, recipe);
    for (int64_t k = 0; k < 128; ++k) ASSERT_EQ(quantized.g_idx[k], k / 32) << preset;
  }
  Recipe desc_act;
  desc_act.group_size = 32;
  desc_act.desc_act = true;
  desc_act.static_groups = false;
  const Quantized quantized = problem.solve_with(*backend, desc_act);
  std::vector<int> members(4);
  bool shuffled = false;
  for (int64_t k = 0; k < 128; ++k) {
    ++members[quantized.g_idx[k]];
    shuffled = shuffled || quantized.g_idx[k] != k / 32;
  }
  EXPECT_EQ(members, (std::vector<int>{32, 32, 32, 32}));
  EXPECT_TRUE(shuffled);
  EXPECT_NEAR(quantized.loss / problem.output_error(*backend, quantized), 1, 0.2);
}

TEST(Solver, StoredScalesAreExactHalves) {
  const auto backend = open_backend("cpu");
  const Problem problem(16, 128, 500, 31);
  for (const char* preset : {"default", "paper"}) {
    Recipe recipe = recipe_preset(preset);
    const Quantized quantized = problem.solve_with(*backend, recipe);
    for (const float scale : to_host<float>(*backend, quantized.scales)) {
      EXPECT_EQ(scale, static_cast<float>(Half(scale)));
      EXPECT_GT(scale, 0);
    }
  }
}

TEST(Hessian, RaisesTheDampingWhenTheFactorizationFailsAndSaysSo) {
  // One token: a Hessian of rank one, with a damping below f32 precision.
  const auto backend = open_backend("cpu");
  std::vector<float> x(64);
  for (size_t k = 0; k < x.size(); ++k) x[k] = 1 + 0.01F * static_cast<float>(k);
  Recipe recipe;
  recipe.group_size = 64;
  recipe.damp_percent = 1e-9;
  Hessian hessian(*backend, 64);
  hessian.add(to_device(*backend, DType::f32, 1, 64, x.data()));
  try {
    const FactoredHessian factored = hessian.factor(resolve(recipe), "layer");
    EXPECT_GE(factored.damp_percent, recipe.damp_percent);
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("layer"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("`damp_percent`"), std::string::npos);
  }
}

TEST(Hessian, DropsAndCountsRowsThatAreNotFinite) {
  const auto backend = open_backend("cpu");
  const Problem problem(8, 64, 300, 41);
  std::vector<float> X = problem.X;
  X.insert(X.end(), problem.X.begin(), problem.X.begin() + 64);
  X[300 * 64 + 7] = std::nanf("");
  Recipe recipe;
  recipe.group_size = 32;
  Hessian hessian(*backend, 64);
  hessian.add(to_device(*backend, DType::f32, 301, 64, X.data()));
  EXPECT_EQ(hessian.dropped(), 1);
  const FactoredHessian factored = hessian.factor(resolve(recipe), "layer");
  EXPECT_EQ(factored.tokens, 300);
  const Matrix w = to_device(*backend, DType::f32, 8, 64, problem.W.data());
  const Quantized with_bad_row = solve(*backend, w, factored, resolve(recipe)),
                  clean = problem.solve_with(*backend, recipe);
  EXPECT_EQ(to_host<uint8_t>(*backend, with_bad_row.codes), to_host<uint8_t>(*backend, clean.codes));
}

TEST(Hessian, RefusesToFactorNothing) {
  const auto backend = open_backend("cpu");
  Hessian hessian(*backend, 32);
  Recipe recipe;
  recipe.group_size = 32;
  EXPECT_THROW(hessian.factor(resolve(recipe), "layer"), InputError);
}

TEST(ColumnOrder, SortsAsItsNameSays) {
  const std::vector<float> diagonal = {1, 5, 2, 2, 9, 3};
  EXPECT_EQ(column_order(diagonal, Order::natural, 2), (std::vector<int32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(column_order(diagonal, Order::diagonal, 2), (std::vector<int32_t>{4, 1, 5, 2, 3, 0}));
  EXPECT_EQ(column_order(diagonal, Order::group_aware, 2), (std::vector<int32_t>{4, 5, 1, 0, 2, 3}));
}

}  // namespace
}  // namespace gptq
