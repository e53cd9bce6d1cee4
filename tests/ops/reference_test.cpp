// The oracle itself against examples worked by hand.
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "ops/ops.h"

namespace gptq {
namespace {

Matrix matrix(int64_t rows, int64_t cols, const std::vector<float>& values) {
  Matrix m(host_memory(), DType::f32, rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i) m.row<float>(0)[i] = values[i];
  return m;
}

Matrix bytes(int64_t rows, int64_t cols, const std::vector<uint8_t>& values) {
  Matrix m(host_memory(), DType::u8, rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i) m.row<uint8_t>(0)[i] = values[i];
  return m;
}

void expect_near(const Matrix& m, const std::vector<float>& expected, float limit = 1e-6F) {
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(m.row<float>(0)[i], expected[i], limit) << "element " << i;
}

TEST(Reference, LinearMultipliesByTheTransposeAndAddsTheBias) {
  Matrix y = matrix(1, 2, {9, 9});
  reference(ops::Linear{
      .x = matrix(1, 3, {1, 2, 3}), .w = matrix(2, 3, {1, 0, -1, 2, 2, 2}), .bias = matrix(1, 2, {10, 20}), .y = y});
  expect_near(y, {8, 32});
}

TEST(Reference, RmsNormDividesByTheRootMeanSquare) {
  Matrix y = matrix(1, 2, {0, 0});
  reference(ops::RmsNorm{.x = matrix(1, 2, {3, 4}), .weight = matrix(1, 2, {1, 2}), .eps = 0, .y = y});  // sqrt(25 / 2)
  expect_near(y, {0.8485281F, 2.2627417F});
}

TEST(Reference, RmsNormOfGroupsTakesTheirWeightsInTurn) {
  Matrix y = matrix(1, 6, std::vector<float>(6));
  const Matrix x = matrix(1, 6, {3, 4, 6, 8, 0, 2});  // root mean squares 5 / sqrt(2), 10 / sqrt(2), sqrt(2)
  const float root = std::sqrt(2.0F);
  reference(ops::RmsNorm{.x = x, .weight = matrix(1, 2, {1, 10}), .eps = 0, .y = y});
  expect_near(y, {0.6F * root, 8 * root, 0.6F * root, 8 * root, 0, 10 * root}, 1e-5F);
  reference(ops::RmsNorm{.x = x, .weight = matrix(3, 2, {1, 10, 2, 20, 3, 30}), .eps = 0, .y = y});
  expect_near(y, {0.6F * root, 8 * root, 1.2F * root, 16 * root, 0, 30 * root}, 1e-5F);
  reference(ops::RmsNorm{
      .x = x, .weight = matrix(2, 2, {1, 10, 2, 20}), .eps = 0, .y = y});  // the third group takes the first row again
  expect_near(y, {0.6F * root, 8 * root, 1.2F * root, 16 * root, 0, 10 * root}, 1e-5F);
}

TEST(Reference, LayerNormTakesTheMeanOff) {
  // 1, 3: mean 2, deviation 1. 10, 14: mean 12, deviation 2.
  Matrix y = matrix(1, 4, {0, 0, 0, 0});
  const Matrix x = matrix(1, 4, {1, 3, 10, 14});
  reference(ops::LayerNorm{.x = x, .weight = matrix(1, 2, {1, 5}), .eps = 0, .y = y});
  expect_near(y, {-1, 5, -1, 5});
  reference(ops::LayerNorm{
      .x = x, .weight = matrix(2, 2, {1, 5, 2, 4}), .bias = matrix(2, 2, {0.5F, 0, 0, 7}), .eps = 0, .y = y});
  expect_near(y, {-0.5F, 5, -2, 11});
  reference(ops::LayerNorm{.x = x, .weight = matrix(1, 2, {1, 1}), .eps = 3, .y = y});  // sqrt(1 + 3), sqrt(4 + 3)
  expect_near(y, {-0.5F, 0.5F, -2 / std::sqrt(7.0F), 2 / std::sqrt(7.0F)});
}

TEST(Reference, RopeTurnsNeighboursWhereTheyArePairs) {
  // A quarter turn of the first pair and none of the second; the last two elements are not rotated.
  Matrix x = matrix(1, 6, {1, 2, 3, 4, 5, 6});
  reference(ops::Rope{.cos = matrix(1, 2, {0, 1}),
                      .sin = matrix(1, 2, {1, 0}),
                      .offsets = std::vector<int64_t>{0, 1},
                      .order = RotaryOrder::interleaved,
                      .head_dim = 6,
                      .x = x});
  expect_near(x, {-2, 1, 3, 4, 5, 6});
}

TEST(Reference, RopeTurnsPairsHalfAHeadApart) {
  // A quarter turn at position 1: (a, b) becomes (-b, a). The second sequence starts at position 0 again.
  Matrix x = matrix(3, 4, {1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8});
  reference(ops::Rope{.cos = matrix(2, 2, {1, 1, 0, 0}),
                      .sin = matrix(2, 2, {0, 0, 1, 1}),
                      .offsets = std::vector<int64_t>{0, 2, 3},
                      .order = RotaryOrder::halves,
                      .head_dim = 4,
                      .x = x});
  expect_near(x, {1, 2, 3, 4, -3, -4, 1, 2, 5, 6, 7, 8});
}

TEST(Reference, RopeLeavesTheRestOfAHeadAlone) {
  Matrix x = matrix(1, 4, {1, 2, 3, 4});
  reference(ops::Rope{.cos = matrix(1, 1, {0}),
                      .sin = matrix(1, 1, {1}),
                      .offsets = std::vector<int64_t>{0, 1},
                      .order = RotaryOrder::halves,
                      .head_dim = 4,
                      .x = x});
  expect_near(x, {-2, 1, 3, 4});
}

TEST(Reference, AttentionSeesOnlyEarlierTokensOfItsSequence) {
  // One head of width 1 and q = k = 0, so each token averages v over its sequence so far.
  const Matrix zeros = matrix(4, 1, {0, 0, 0, 0});
  Matrix y = matrix(4, 1, {0, 0, 0, 0});
  reference(ops::Attention{.q = zeros,
                           .k = zeros,
                           .v = matrix(4, 1, {2, 4, 9, 7}),
                           .offsets = std::vector<int64_t>{0, 3, 4},
                           .shape = {1, 1, 1, 1},
                           .y = y});
  expect_near(y, {2, 3, 5, 7});
}

TEST(Reference, AttentionWeighsByTheExponentialOfScaledScores) {
  // Scores 0 and ln(3) / 2 * 2: weights 1/4 and 3/4. Two query heads share one key head.
  const float half_log3 = std::log(3.0F) / 2;
  Matrix y = matrix(2, 2, {0, 0, 0, 0});
  reference(ops::Attention{.q = matrix(2, 2, {1, 0, 1, 0}),
                           .k = matrix(2, 1, {0, half_log3}),
                           .v = matrix(2, 1, {4, 8}),
                           .offsets = std::vector<int64_t>{0, 2},
                           .shape = {2, 1, 1, 2},
                           .y = y});
  expect_near(y, {4, 4, 7, 6});
}

// Attention of one head of width 1 in which key k has the score scores[k] for every query.
Matrix attended(const std::vector<float>& scores, const std::vector<float>& values, const AttentionShape& shape) {
  const auto tokens = static_cast<int64_t>(scores.size());
  Matrix y(host_memory(), DType::f32, tokens, 1);
  reference(ops::Attention{.q = matrix(tokens, 1, std::vector<float>(scores.size(), 1)),
                           .k = matrix(tokens, 1, scores),
                           .v = matrix(tokens, 1, values),
                           .offsets = std::vector<int64_t>{0, tokens},
                           .shape = shape,
                           .y = y});
  return y;
}

TEST(Reference, AttentionSeesAWindow) {
  AttentionShape shape = {1, 1, 1, 1};
  shape.window = 2;
  expect_near(attended({0, 0, 0, 0}, {2, 4, 10, 20}, shape), {2, 3, 7, 15});
  shape.window = 1;
  expect_near(attended({5, -5, 0, 9}, {2, 4, 10, 20}, shape), {2, 4, 10, 20});
}

TEST(Reference, AttentionSeesItsChunk) {
  AttentionShape shape = {1, 1, 1, 1};
  shape.chunk = 3;
  expect_near(attended({0, 0, 0, 0, 0}, {2, 4, 9, 20, 30}, shape), {2, 3, 5, 20, 25});
  shape.window = 2;  // both
  expect_near(attended({0, 0, 0, 0, 0}, {2, 4, 9, 20, 30}, shape), {2, 3, 6.5F, 20, 25});
}

TEST(Reference, AttentionCapsScoresBeforeItAddsSlopes) {
  // A score of 2 atanh(ln(3) / 2) becomes 2 tanh(..) = ln(3): weights 1/4 and 3/4.
  AttentionShape shape = {1, 1, 1, 1};
  shape.soft_cap = 2;
  const float log3 = std::log(3.0F), capped_to_log3 = 2 * std::atanh(log3 / 2);
  expect_near(attended({0, capped_to_log3}, {4, 8}, shape), {4, 7});
  // With the slope ln(3) a key weighs a third of the next one.
  const Matrix slopes = matrix(1, 1, {log3});
  shape.slopes = slopes;
  expect_near(attended({1, 1}, {4, 8}, shape), {4, 7});
  expect_near(attended({0, 0, 0}, {13, 26, 39}, shape), {13, 22.75F, (13 + 3 * 26 + 9 * 39) / 13.0F}, 1e-5F);
  // 3 : 1 by capped scores and 1 : 3 by distance; capped after the slope they would not be equal.
  expect_near(attended({capped_to_log3, 0}, {4, 8}, shape), {4, 6});
}

TEST(Reference, ASinkTakesItsShareAndGivesNothing) {
  // Two scores of 0 and a sink of ln(2): shares 1/4, 1/4 and 1/2.
  AttentionShape shape = {1, 1, 1, 1};
  const Matrix sinks = matrix(1, 1, {std::log(2.0F)});
  shape.sinks = sinks;
  expect_near(attended({0, 0}, {6, 10}, shape), {2, 4});
}

TEST(Reference, SlopesAndSinksAreTheHeads) {
  AttentionShape shape = {2, 1, 1, 1};
  const Matrix sinks = matrix(1, 2, {-INFINITY, 0}), slopes = matrix(1, 2, {0, std::log(3.0F)});
  shape.sinks = sinks;
  shape.slopes = slopes;
  Matrix y = matrix(2, 2, {0, 0, 0, 0});
  reference(ops::Attention{.q = matrix(2, 2, {1, 1, 1, 1}),
                           .k = matrix(2, 1, {0, 0}),
                           .v = matrix(2, 1, {4, 8}),
                           .offsets = std::vector<int64_t>{0, 2},
                           .shape = shape,
                           .y = y});
  expect_near(y, {4, 2, 6, (4.0F / 3 + 8) / (1.0F / 3 + 2)});
}

TEST(Reference, CapsAreHardOrSoft) {
  Matrix x = matrix(1, 4, {-9, -2, 0.5F, 3});
  reference(ops::Cap{.kind = ops::Cap::hard, .bound = 2, .x = x});
  expect_near(x, {-2, -2, 0.5F, 2});
  x = matrix(1, 3, {0, std::log(3.0F), -2 * std::log(3.0F)});  // tanh(ln(3) / 2) = 1/2, tanh(ln 3) = 4/5
  reference(ops::Cap{.kind = ops::Cap::soft, .bound = 2, .x = x});
  expect_near(x, {0, 1, -1.6F});
}

TEST(Reference, AddedRowsHaveWeights) {
  Matrix y = matrix(3, 2, {1, 1, 2, 2, 3, 3});
  reference(ops::AddRows{.x = matrix(2, 2, {10, 20, 30, 40}),
                         .ids = std::vector<int32_t>{2, 0},
                         .weights = std::vector<float>{0.5F, -1},
                         .y = y});
  expect_near(y, {-29, -39, 2, 2, 8, 13});
}

TEST(Reference, GatesWithoutASecondSide) {
  Matrix y = matrix(1, 2, {9, 9});
  reference(ops::Gate{.gate = matrix(1, 2, {3, -1}), .activation = Activation::relu_squared, .y = y});
  expect_near(y, {9, 0});
  reference(ops::Gate{.gate = matrix(1, 2, {1, -1}), .activation = Activation::silu, .y = y});
  expect_near(y, {0.7310586F, -0.2689414F});
}

// A state of one element: s = 5, then exp(log 1/2) 5 + 1/2 3 (4 - 3 5/2) = -2.75.
TEST(Reference, TheDeltaRuleCorrectsItsState) {
  Matrix y = matrix(3, 1, {0, 0, 0});
  const std::vector<int64_t> offsets = {0, 2, 3};
  const Matrix q = matrix(3, 1, {1, 2, 1}), k = matrix(3, 1, {1, 3, 1}), v = matrix(3, 1, {5, 4, 7}),
               log_decay = matrix(3, 1, {-9, -0.6931472F, 0}), beta = matrix(3, 1, {1, 0.5F, 1});
  reference(ops::GatedDeltaRule{
      .q = q, .k = k, .v = v, .log_decay = log_decay, .beta = beta, .offsets = offsets, .shape = {1, 1, 1, 1}, .y = y});
  expect_near(y, {5, -5.5F, 7});
}

TEST(Reference, DecaysAreRatesTimesASoftplus) {
  Matrix y = matrix(1, 2, {0, 0});
  reference(ops::LogDecay{
      .x = matrix(1, 2, {0, 99}), .log_rate = matrix(1, 2, {0, 0.6931472F}), .bias = matrix(1, 2, {0, 1}), .y = y});
  expect_near(y, {-0.6931472F, -200}, 1e-4F);
}

TEST(Reference, ConvolutionsReadTheTokensBeforeInTheirSequence) {
  Matrix y = matrix(4, 1, {0, 0, 0, 0});
  const std::vector<int64_t> offsets = {0, 3, 4};
  reference(ops::CausalConvolution{.x = matrix(4, 1, {1, 2, 3, 4}),
                                   .weight = matrix(1, 3, {100, 10, 1}),
                                   .bias = matrix(1, 1, {1000}),
                                   .offsets = offsets,
                                   .y = y});
  expect_near(y, {1001, 1012, 1123, 1004});
}

TEST(Reference, StatesDecayAndAreOfOneSequence) {
  // Steps are bounded to 1, so each decay is 1 / e: h = 2, then 2 / e + 1 * 2.
  Matrix y = matrix(3, 1, {0, 0, 0});
  const std::vector<int64_t> offsets = {0, 2, 3};
  reference(ops::StateSpaceDual{.x = matrix(3, 1, {1, 2, 1}),
                                .dt = matrix(3, 1, {5, 6, 7}),
                                .b = matrix(3, 1, {2, 1, 1}),
                                .c = matrix(3, 1, {3, 1, 1}),
                                .dt_bias = matrix(1, 1, {0.5}),
                                .a_log = matrix(1, 1, {0}),
                                .d = matrix(1, 1, {10}),
                                .offsets = offsets,
                                .shape = {.heads = 1, .head_dim = 1, .groups = 1, .state = 1, .max_step = 1},
                                .y = y});
  expect_near(y, {16, 22.7357589F, 11}, 1e-5F);
}

TEST(Reference, ScansSelectByTheirSteps) {
  // A step of 25 and a rate of 0.04: h = 0.04 * 25, then h / e + 0.08 * 25.
  Matrix y = matrix(2, 1, {0, 0});
  const std::vector<int64_t> offsets = {0, 2};
  reference(ops::SelectiveScan{.x = matrix(2, 1, {1, 1}),
                               .dt = matrix(2, 1, {25, 25}),
                               .b = matrix(2, 1, {0.04F, 0.08F}),
                               .c = matrix(2, 1, {1, 2}),
                               .a_log = matrix(1, 1, {-3.2188758F}),
                               .d = matrix(1, 1, {10}),
                               .offsets = offsets,
                               .y = y});
  expect_near(y, {11, 14.7357589F}, 1e-5F);
}

TEST(Reference, ClampedSwigluBoundsBothSides) {
  // g = 1: 1 / (1 + exp(-1.702)) = 0.845795; g = 7 of 50: 7 / (1 + exp(-11.914)) = 6.999953.
  Matrix y = matrix(1, 4, {0, 0, 0, 0});
  reference(ops::Gate{.gate = matrix(1, 4, {1, 50, 1, -1}),
                      .up = matrix(1, 4, {2, 1, 9, -30}),
                      .activation = Activation::clamped_swiglu,
                      .y = y});
  expect_near(y, {3 * 0.845795F, 2 * 6.999953F, 8 * 0.845795F, 6 * 0.154205F}, 1e-5F);
}

TEST(Reference, GatesOfOne) {
  const auto gated = [](Activation activation) {
    Matrix y = matrix(1, 2, {0, 0});
    reference(ops::Gate{.gate = matrix(1, 2, {1, -1}), .up = matrix(1, 2, {2, 2}), .activation = activation, .y = y});
    return y;
  };
  expect_near(gated(Activation::silu), {2 * 0.7310586F, -2 * 0.2689414F});
  expect_near(gated(Activation::gelu), {2 * 0.8413447F, -2 * 0.1586553F});
  expect_near(gated(Activation::gelu_tanh), {2 * 0.8411920F, -2 * 0.1588080F});
  expect_near(gated(Activation::relu), {2, 0});
  expect_near(gated(Activation::quick_gelu), {2 * 0.8457958F, -2 * 0.1542042F});
  expect_near(gated(Activation::sigmoid), {2 * 0.7310586F, 2 * 0.2689414F});
  expect_near(gated(Activation::softplus), {2 * 1.3132617F, 2 * 0.3132617F});
}

TEST(Reference, XieluBendsItsTwoSidesByTheirAlphas) {
  // p = log(1 + e^0) = 0.6931472, n = 0.5 + log(1 + e) = 1.8132617; exp(-2) - 1 + 2 = 1.1353353.
  Matrix y = matrix(1, 3, {0, 0, 0});
  reference(ops::Xielu{.x = matrix(1, 3, {2, -2, 0}), .alphas = matrix(2, 1, {0, 1}), .y = y});
  expect_near(y, {4 * 0.6931472F + 1, 1.8132617F * 1.1353353F - 1, -1.8132617e-6F});
}

TEST(Reference, GramAddsOuterProductsOfFiniteRows) {
  Matrix h = matrix(2, 2, {1, 100, 1, 1}), dropped(host_memory(), DType::i32, 1, 1);
  dropped.row<int32_t>(0)[0] = 3;
  reference(ops::AddGram{.x = matrix(3, 2, {1, 2, NAN, 5, 3, 4}), .h = h, .dropped = dropped});
  expect_near(h, {11, 100, 15, 21});
  EXPECT_EQ(dropped.row<int32_t>(0)[0], 4);
}

TEST(Reference, PermuteSymmetricReordersRowsAndColumns) {
  // The symmetric matrix {1 2 4, 2 3 5, 4 5 6}, with rubbish above its diagonal.
  Matrix y = matrix(3, 3, std::vector<float>(9, 7.0F));
  reference(ops::PermuteSymmetric{
      .h = matrix(3, 3, {1, 99, 99, 2, 3, 99, 4, 5, 6}), .order = std::vector<int32_t>{2, 0, 1}, .damp = 0.5F, .y = y});
  expect_near(y, {6.5F, 0, 0, 4, 1.5F, 0, 5, 2, 3.5F});
}

TEST(Reference, FactorIsTheLowerTriangleWhoseTransposeComesFirst) {
  // F = {2 0, 1 3}: F' F = {5 3, 3 9}.
  Matrix h = matrix(2, 2, {5, 0, 3, 9});
  ASSERT_TRUE(reference(ops::Factor{.h = h}));
  expect_near(h, {2, 0, 1, 3});
  Matrix indefinite = matrix(2, 2, {1, 0, 3, 9});
  EXPECT_FALSE(reference(ops::Factor{.h = indefinite}));
}

TEST(Reference, TrianglesAreSolvedFromTheRight) {
  // F = {2 0, 1 4}. y F' = x: y0 = 6 / 2, y1 = (11 - 3) / 4. y F = x: y1 = 8 / 4, y0 = (6 - 2) / 2.
  Matrix x = matrix(1, 2, {6, 11});
  reference(ops::SolveTriangle{.factor = matrix(2, 2, {2, 99, 1, 4}), .transposed = true, .x = x});
  expect_near(x, {3, 2});
  x = matrix(1, 2, {6, 8});
  reference(ops::SolveTriangle{.factor = matrix(2, 2, {2, 99, 1, 4}), .transposed = false, .x = x});
  expect_near(x, {2, 2});
}

TEST(Reference, SystemsAreSolvedRowByRow) {
  // {4 2, 2 3} y = {8, 8}: y = {1, 2}. With the ridge 2 / 3.5 of the mean diagonal: {6 2, 2 5} y = {8, 7}: {1, 1}.
  Matrix x = matrix(1, 2, {8, 8});
  reference(ops::SolveSystems{.a = matrix(1, 4, {4, 99, 2, 3}), .ridge = 0, .x = x});
  expect_near(x, {1, 2});
  x = matrix(1, 2, {8, 7});
  reference(ops::SolveSystems{.a = matrix(1, 4, {4, 99, 2, 3}), .ridge = 2 / 3.5F, .x = x});
  expect_near(x, {1, 1});
  x = matrix(2, 2, {1, 1, 1, 1});  // not positive definite; infinite
  reference(ops::SolveSystems{.a = matrix(2, 4, {1, 0, 2, 1, INFINITY, 0, 0, 1}), .ridge = 0, .x = x});
  expect_near(x, {0, 0, 0, 0});
}

TEST(Reference, GroupProductsSumOverEachGroup) {
  Matrix products = matrix(1, 2, {9, 9});
  reference(ops::GroupProducts{
      .x = matrix(1, 4, {1, 2, 3, 4}), .y = matrix(1, 4, {5, 6, 7, 8}), .group_size = 2, .products = products});
  expect_near(products, {17, 53});
}

TEST(Reference, CrossGramIsOfTheInputAndItsDifference) {
  // x' (original - x) with x = {1 2}, original = {2 5}: {1, 2}' {1, 3}; the second row is not finite.
  Matrix c = matrix(2, 2, {10, 0, 0, 0});
  reference(ops::AddCrossGram{.x = matrix(2, 2, {1, 2, 3, 4}), .original = matrix(2, 2, {2, 5, NAN, 0}), .c = c});
  expect_near(c, {11, 3, 2, 6});
}

TEST(Reference, MirrorCopiesTheLowerTriangle) {
  Matrix h = matrix(2, 2, {1, 99, 2, 3});
  reference(ops::Mirror{.h = h});
  expect_near(h, {1, 2, 2, 3});
}

TEST(Reference, ASignedGridPutsCodeZeroOnTheLargestWeight) {
  Matrix scales = matrix(2, 1, {0, 0}), zeros(host_memory(), DType::u8, 2, 1);
  const GridSearch search{.bits = 3, .signed_scales = true};
  reference(ops::FindGrid{
      .w = matrix(2, 2, {4, -1, -8, 8}), .group_size = 2, .search = search, .scales = scales, .zeros = zeros});
  expect_near(scales, {-1, 2});  // code 0 stands for -4 scales
}

TEST(Reference, ASearchTriesTheOtherSignAndNeighbouringZeros) {
  // 3 bits, signed: over {4, -3.15, -3.15} the scale -1 leaves 0.15 twice; +1.05 reaches -4.2 .. 3.15 and leaves 0.85.
  Matrix scales = matrix(1, 1, {0}), zeros(host_memory(), DType::u8, 1, 1);
  const GridSearch both{.bits = 3, .candidates = 2, .shrink_step = 0.25F, .signed_scales = true};
  reference(ops::FindGrid{.w = matrix(1, 3, {4, -3.15F, -3.15F}),
                          .importance = matrix(1, 3, {0, 1, 1}),
                          .group_size = 3,
                          .search = both,
                          .scales = scales,
                          .zeros = zeros});
  EXPECT_GT(scales.row<float>(0)[0], 0);
  // 2 bits, asymmetric: over [-1.4, 1.6] the scale is 1 and the zero 1; weights of importance at -1.4 make it 2.
  const GridSearch shifted{.bits = 2, .symmetric = false, .search_zeros = true};
  reference(ops::FindGrid{.w = matrix(1, 2, {-1.4F, 1.6F}),
                          .importance = matrix(1, 2, {1, 0.01F}),
                          .group_size = 2,
                          .search = shifted,
                          .scales = scales,
                          .zeros = zeros});
  expect_near(scales, {1});
  EXPECT_EQ(zeros.row<uint8_t>(0)[0], 1);
  reference(ops::FindGrid{.w = matrix(1, 2, {-1.4F, 1.6F}),
                          .importance = matrix(1, 2, {1, 0.0001F}),
                          .group_size = 2,
                          .search = shifted,
                          .scales = scales,
                          .zeros = zeros});
  EXPECT_EQ(zeros.row<uint8_t>(0)[0], 1) << "-1 is nearer to -1.4 than -2";
}

TEST(Reference, ProductNormsAreThoseOfTheProduct) {
  // R = {2 1, 0 4}: w R = {3 * 2, 3 * 1 + 5 * 4}.
  Matrix norms = matrix(1, 1, {10});
  reference(ops::AddProductNorms{.w = matrix(1, 2, {3, 5}), .factor = matrix(2, 2, {2, 99, 1, 4}), .norms = norms});
  expect_near(norms, {10 + 36 + 529});
}

TEST(Reference, SymmetricGridSpansTheLargestMagnitude) {
  Matrix scales = matrix(1, 2, {0, 0}), zeros = bytes(1, 2, {0, 0});
  reference(ops::FindGrid{.w = matrix(1, 4, {-3, 1, 0, 0}),
                          .group_size = 2,
                          .search = {2, true, 1, 0, 2},
                          .scales = scales,
                          .zeros = zeros});
  expect_near(scales, {2, static_cast<float>(Half(2.0F / 3))});  // 2 * 3 / 3, and 2 / 3 for a group of zeros
  EXPECT_EQ(zeros.row<uint8_t>(0)[0], 2);
  EXPECT_EQ(zeros.row<uint8_t>(0)[1], 2);
}

TEST(Reference, AsymmetricGridSpansZeroToo) {
  Matrix scales = matrix(2, 1, {0, 0}), zeros = bytes(2, 1, {0, 0});
  reference(ops::FindGrid{.w = matrix(2, 2, {-1, 2, 4, 6}),
                          .group_size = 2,
                          .search = {2, false, 1, 0, 2},
                          .scales = scales,
                          .zeros = zeros});
  expect_near(scales, {1, 2});  // [-1, 2] and [0, 6] in 3 steps
  EXPECT_EQ(zeros.row<uint8_t>(0)[0], 1);
  EXPECT_EQ(zeros.row<uint8_t>(1)[0], 0);
}

TEST(Reference, GridSearchKeepsTheLeastWeightedError) {
  // 2 bits, symmetric: levels -2 .. 1 times the scale. At full width the scale is 2 and the three ones become 0 or 2;
  // at half width it is 1, and the ones are exact but 3 becomes 1.
  const Matrix w = matrix(1, 4, {3, 1, 1, 1});
  const GridSearch search = {2, true, 2, 0.5F, 2};
  Matrix scales = matrix(1, 1, {0}), zeros = bytes(1, 1, {0});
  reference(ops::FindGrid{.w = w,
                          .group_size = 4,
                          .search = search,
                          .scales = scales,
                          .zeros = zeros});  // 1 + 3 against 4: the first of equals
  expect_near(scales, {2});
  reference(ops::FindGrid{.w = w,
                          .importance = matrix(1, 4, {1, 2, 2, 2}),
                          .group_size = 4,
                          .search = search,
                          .scales = scales,
                          .zeros = zeros});  // 1 + 6 against 4
  expect_near(scales, {1});
}

TEST(Reference, ColumnsPassTheirErrorsOn) {
  // Scale 1, zero 2, codes 0 .. 3. Column 0: 0.4 rounds to 0, error 0.4; column 1 receives 0.4 * 3 / 2 = 0.6: 0.2 + 0.6
  // rounds to 1, and its own error counts from 0.2.
  Matrix codes = bytes(1, 2, {0, 0}), errors = matrix(1, 2, {0, 0}), loss = matrix(1, 1, {1});
  const Matrix scales = matrix(1, 1, {1}), zeros = bytes(1, 1, {2});
  reference(ops::QuantizeColumns{.w = matrix(1, 2, {0.4F, 0.2F}),
                                 .feedback = matrix(1, 2, {0, 0}),
                                 .factor = matrix(2, 2, {1, 0, 3, 2}),
                                 .groups = std::vector<int32_t>{0, 0},
                                 .grid = {scales, zeros, 2},
                                 .codes = codes,
                                 .errors = errors,
                                 .loss = loss});
  EXPECT_EQ(codes.row<uint8_t>(0)[0], 2);
  EXPECT_EQ(codes.row<uint8_t>(0)[1], 3);
  expect_near(errors, {0.4F, -0.8F});
  expect_near(loss, {1 + 0.16F + 0.16F});  // (1 * 0.4)^2 + (2 * -0.2)^2
}

TEST(Reference, RoundedCodesAreClampedAndDequantizeBack) {
  const Matrix scales = matrix(1, 2, {0.5F, 2}), zeros = bytes(1, 2, {2, 0});
  const std::vector<int32_t> groups = {0, 0, 1, 1};
  Matrix codes = bytes(1, 4, {0, 0, 0, 0}), w = matrix(1, 4, {0, 0, 0, 0});
  reference(ops::RoundColumns{
      .w = matrix(1, 4, {0.6F, -9, 5.5F, -1}), .groups = groups, .grid = {scales, zeros, 2}, .codes = codes});
  reference(ops::Dequantize{.codes = codes, .groups = groups, .grid = {scales, zeros, 2}, .w = w});
  EXPECT_EQ(std::vector<uint8_t>(codes.row<uint8_t>(0), codes.row<uint8_t>(0) + 4), (std::vector<uint8_t>{3, 0, 3, 0}));
  expect_near(w, {0.5F, -1, 6, 0});
}

std::vector<uint32_t> packed(int64_t rows, int64_t cols, int bits, const std::vector<uint8_t>& codes) {
  Matrix words(host_memory(), DType::i32, cols * bits / 32, rows);
  reference(ops::Pack{.codes = bytes(rows, cols, codes), .bits = bits, .words = words});
  return {words.row<uint32_t>(0), words.row<uint32_t>(0) + words.view().size()};
}

TEST(Reference, FourBitsPutTheFirstCodeLowest) {
  EXPECT_EQ(packed(1, 8, 4, {1, 2, 3, 4, 5, 6, 7, 8}), std::vector<uint32_t>{0x87654321U});
}

TEST(Reference, TwoBitsPutSixteenCodesInAWord) {
  // 0b11100100 twice, then 1111 1111, then 10 00 00 00
  EXPECT_EQ(packed(1, 16, 2, {0, 1, 2, 3, 0, 1, 2, 3, 3, 3, 3, 3, 0, 0, 0, 2}), std::vector<uint32_t>{0x80FFE4E4U});
}

TEST(Reference, EightBitsPutFourCodesInAWord) {
  EXPECT_EQ(packed(1, 4, 8, {0x12, 0x34, 0x56, 0xFF}), std::vector<uint32_t>{0xFF563412U});
}

TEST(Reference, ThreeBitsStraddleWords) {
  // Code 10 starts at bit 30: its low two bits end word 0, its high bit starts word 1. Code 21 starts at bit 63: its
  // low bit ends word 1, its high two bits start word 2.
  std::vector<uint8_t> codes(32, 0);
  codes[0] = 5;
  codes[10] = 6;  // 0b110
  codes[21] = 3;  // 0b011
  codes[31] = 7;
  EXPECT_EQ(packed(1, 32, 3, codes), (std::vector<uint32_t>{5U | (2U << 30), 1U | (1U << 31), 1U | (7U << 29)}));
}

TEST(Reference, StreamsOfRowsRunDownTheColumns) {
  // Row 0 counts up, row 1 is 8 ones and 8 twos.
  EXPECT_EQ(packed(2, 16, 4, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,  //
                              1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,  2,  2,  2,  2,  2}),
            (std::vector<uint32_t>{0x76543210U, 0x11111111U, 0xFEDCBA98U, 0x22222222U}));
}

TEST(Reference, LossOfATokenIsItsNegativeLogProbability) {
  Matrix losses = matrix(2, 1, {0, 0});
  reference(ops::TokenLosses{
      .logits = matrix(2, 2, {0, 0, 0, std::log(3.0F)}), .targets = std::vector<int32_t>{1, 1}, .losses = losses});
  expect_near(losses, {std::log(2.0F), std::log(4.0F / 3)});
}

TEST(Reference, DivergenceOfTwoCoins) {
  // Probabilities 1/2, 1/2 against 1/4, 3/4: (ln 2 + ln(2/3)) / 2. Of equal maxima the first counts.
  Matrix divergence = matrix(2, 1, {0, 0}), same_top = matrix(2, 1, {9, 9});
  const float log3 = std::log(3.0F);
  reference(ops::CompareLogits{.p = matrix(2, 2, {0, 0, 0, log3}),
                               .q = matrix(2, 2, {0, log3, 0, log3}),
                               .divergence = divergence,
                               .same_top = same_top});
  expect_near(divergence, {std::log(4.0F / 3) / 2, 0});
  expect_near(same_top, {0, 1});
}

}  // namespace
}  // namespace gptq
