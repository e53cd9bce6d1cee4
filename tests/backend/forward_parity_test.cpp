// The ops of the forward pass beside products against reference(), on every backend, in every float dtype, on awkward
// shapes, oddly placed in memory and aligned. Limits are a priori bounds, as in parity_test.cpp.
#include <algorithm>

#include "backend/devices.h"

namespace gptq {
namespace {

using ForwardParity = OnEveryDevice;
INSTANTIATE_TEST_SUITE_P(Backends, ForwardParity, testing::ValuesIn(devices()), name_of_device);

struct Size {
  int64_t rows, cols;
};
constexpr Size kSizes[] = {{1, 1}, {1, 33}, {5, 64}, {33, 7}, {3, 1000}, {0, 8}, {8, 0}};
constexpr Placed kPlaced[] = {Placed::oddly, Placed::aligned};

TEST_P(ForwardParity, AddedRowsHaveWeightsAndPlaces) {
  const std::vector<int32_t> ids = {8, 0, 5, 3};
  const std::vector<float> weights = {1, -0.75F, 0, 0.3F};
  for (const DType from : float_dtypes()) {
    for (const DType to : float_dtypes()) {
      for (const Placed placed : kPlaced) {
        SCOPED_TRACE(cat(name_of(from), " to ", name_of(to), ", ", name_of(placed)));
        for (const int64_t width : {1, 33, 64, 1000}) {
          Operand x(backend(), from, 4, width, normal(3), placed), y(backend(), to, 9, width, normal(4), placed);
          backend().run(ops::AddRows{.x = x.device(), .ids = ids, .weights = weights, .y = y.device()});
          reference(ops::AddRows{.x = x.host, .ids = ids, .weights = weights, .y = y.host});
          expect_close(y, [&](int64_t r, int64_t c) {
            const auto i = std::find(ids.begin(), ids.end(), r) - ids.begin();
            return i == 4 ? 0 : kUnit * std::abs(weights[static_cast<size_t>(i)] * element(x.host, i, c));
          });
        }
      }
    }
  }
}

// Calls test(x dtype, weight dtype, placement, tokens, groups, columns of a group, rows of weight) for what norms are
// used with and for awkward shapes.
template <typename Test>
void for_norms(const Test& test) {
  struct Groups {
    int64_t tokens, groups, width;
  };
  for (const DType dtype : float_dtypes()) {
    for (const DType weight_dtype : {dtype, DType::f32}) {
      for (const Placed placed : kPlaced) {
        for (const auto& [tokens, groups, width] : {Groups{1, 1, 1},
                                                    {1, 1, 33},
                                                    {5, 1, 576},
                                                    {3, 2, 33},
                                                    {5, 6, 64},
                                                    {2, 3, 80},
                                                    {7, 4, 128},
                                                    {3, 5, 256},
                                                    {3, 2, 264},
                                                    {2, 3, 1000},
                                                    {0, 2, 8}}) {
          for (const int64_t weights : {int64_t{1}, groups}) {
            SCOPED_TRACE(cat(name_of(dtype), " by ", name_of(weight_dtype), ", ", name_of(placed), ", ", tokens, " x ",
                             groups, " x ", width, ", weights ", weights));
            test(dtype, weight_dtype, placed, tokens, groups, width, weights);
            if (groups == 1) break;
          }
        }
      }
      if (dtype == DType::f32) break;
    }
  }
}

// The sum of squares has no negative terms, so its relative error is at most width 2^-24, and half that after the root.
TEST_P(ForwardParity, RmsNormOfEachGroup) {
  for_norms([&](DType dtype, DType weight_dtype, Placed placed, int64_t tokens, int64_t groups, int64_t width,
                int64_t weights) {
    Operand x(backend(), dtype, tokens, groups * width, normal(5), placed),
        w(backend(), weight_dtype, weights, width, normal(6), placed),
        y(backend(), dtype, tokens, groups * width, nullptr, placed);
    backend().run(ops::RmsNorm{.x = x.device(), .weight = w.device(), .eps = 1e-5F, .y = y.device()});
    reference(ops::RmsNorm{.x = x.host, .weight = w.host, .eps = 1e-5F, .y = y.host});
    expect_close(y, [&](int64_t r, int64_t c) {
      return (static_cast<double>(width) / 2 + 8) * kUnit * std::abs(element(y.host, r, c));
    });
  });
}

struct Spread {
  double centre = 0, deviation = 0;  // the deviation with an epsilon of 1e-5
  double error = 0;                  // of the centre in units of the deviation, as the test below derives it
};
Spread spread_of(ConstMatrixView group) {
  const auto count = static_cast<double>(group.cols);
  double centre = 0, squares = 0, largest = 0, widest = 0;
  for (int64_t i = 0; i < group.cols; ++i) centre += element(group, 0, i) / count;
  for (int64_t i = 0; i < group.cols; ++i) {
    const double difference = element(group, 0, i) - centre;
    squares += difference * difference / count;
    largest = std::max(largest, std::abs(element(group, 0, i)));
    widest = std::max(widest, std::abs(difference));
  }
  const double deviation = std::sqrt(squares + 1e-5);
  return {centre, deviation, (count + 4) * kUnit * (widest + count * kUnit * largest) / deviation};
}

// A mean is wrong by width 2^-24 of the largest element, until the mean of what is left is taken off too: that one is
// wrong by width 2^-24 of the largest difference. The sum of squares is as in RmsNormOfEachGroup.
TEST_P(ForwardParity, LayerNormOfEachGroupHoweverLargeItsMean) {
  for (const double mean : {0.0, 1000.0}) {
    for_norms([&](DType dtype, DType weight_dtype, Placed placed, int64_t tokens, int64_t groups, int64_t width,
                  int64_t weights) {
      const auto value = [mean, noise = normal(5)](int64_t r, int64_t c) mutable { return mean + noise(r, c); };
      Operand x(backend(), dtype, tokens, groups * width, value, placed),
          w(backend(), weight_dtype, weights, width, normal(6), placed),
          bias(backend(), weight_dtype, weights, width, normal(7), placed),
          y(backend(), dtype, tokens, groups * width, nullptr, placed);
      std::vector<Spread> spreads;
      for (int64_t r = 0; r < tokens; ++r) {
        for (int64_t g = 0; g < groups; ++g) spreads.push_back(spread_of(x.host.view().block(r, 1, g * width, width)));
      }
      for (const bool with_bias : {false, true}) {
        backend().run(ops::LayerNorm{.x = x.device(),
                                     .weight = w.device(),
                                     .bias = with_bias ? bias.device() : MatrixView(),
                                     .eps = 1e-5F,
                                     .y = y.device()});
        reference(ops::LayerNorm{.x = x.host,
                                 .weight = w.host,
                                 .bias = with_bias ? ConstMatrixView(bias.host) : ConstMatrixView(),
                                 .eps = 1e-5F,
                                 .y = y.host});
        expect_close(y, [&](int64_t r, int64_t c) {
          const int64_t group = c / width;
          const Spread& spread = spreads[static_cast<size_t>(r * groups + group)];
          const double weight = std::abs(element(w.host, group % weights, c % width));
          const double shift = with_bias ? std::abs(element(bias.host, group % weights, c % width)) : 0;
          const double normed = std::abs(element(x.host, r, c) - spread.centre) / spread.deviation;
          return (normed * ((static_cast<double>(width) / 2 + 8) * kUnit + spread.error) + spread.error) * weight +
                 2 * kUnit * (shift + std::abs(element(y.host, r, c)));
        });
      }
    });
  }
}

// Two products of f32 and one sum of them; cos and sin are at most 1.
TEST_P(ForwardParity, RopeRotatesEachSequenceFromItsStart) {
  const std::vector<int64_t> offsets = {0, 1, 8, 8, 13};
  for (const RotaryOrder order : {RotaryOrder::halves, RotaryOrder::interleaved}) {
    for (const DType dtype : float_dtypes()) {
      for (const Placed placed : kPlaced) {
        for (const int64_t pairs : {1, 12, 16, 32}) {  // of heads with 64 elements, so most rotate a part
          SCOPED_TRACE(cat(order == RotaryOrder::halves ? "halves, " : "interleaved, ", name_of(dtype), ", ",
                           name_of(placed), ", ", pairs, " pairs"));
          const auto angle = [](int64_t r, int64_t c) { return static_cast<double>(r) * 0.3 + static_cast<double>(c); };
          Operand cos(
              backend(), DType::f32, 9, pairs, [&](int64_t r, int64_t c) { return std::cos(angle(r, c)); }, placed);
          Operand sin(
              backend(), DType::f32, 9, pairs, [&](int64_t r, int64_t c) { return std::sin(angle(r, c)); }, placed);
          Operand x(backend(), dtype, 13, 3 * 64, normal(10), placed);
          backend().run(ops::Rope{.cos = cos.device(),
                                  .sin = sin.device(),
                                  .offsets = offsets,
                                  .order = order,
                                  .head_dim = 64,
                                  .x = x.device()});
          reference(ops::Rope{
              .cos = cos.host, .sin = sin.host, .offsets = offsets, .order = order, .head_dim = 64, .x = x.host});
          expect_close(x, [](int64_t, int64_t) { return 3 * kUnit * 5; });
        }
      }
    }
  }
}

struct AttentionCase {
  std::vector<int64_t> offsets;
  AttentionShape shape;
  bool slopes = false, sinks = false;
};

// Queries, keys and values are columns of one matrix, as models may have them.
// A score is wrong by at most (d + 2) 2^-24 scale |q| |k|, a capped one by 16 2^-24 of the cap more, and one with a
// slope or beside a sink by 4 2^-24 of what those add. Twice that, plus one 2^-24 for each of the summed probabilities
// and 8 for the exponential and the divisions, is the relative error of a probability, which is then rounded to the
// dtype.
void expect_attention(Backend& backend, DType dtype, const AttentionCase& test) {
  AttentionShape shape = test.shape, host_shape = shape;
  const int64_t tokens = test.offsets.back(), d = shape.head_dim, width = shape.heads * d,
                kv_width = shape.kv_heads * d;
  const auto slope = [](int64_t, int64_t head) { return head == 0 ? -0.01 : std::pow(0.5, static_cast<double>(head)); };
  const auto sink = [](int64_t, int64_t head) { return head == 1 ? 40.0 : 2.0 - static_cast<double>(head * head); };
  Operand slopes(backend, DType::f32, 1, shape.heads, slope), sinks(backend, DType::f32, 1, shape.heads, sink);
  if (test.slopes) shape.slopes = slopes.device(), host_shape.slopes = slopes.host;
  if (test.sinks) shape.sinks = sinks.device(), host_shape.sinks = sinks.host;
  const auto attention = [&](MatrixView fused, const AttentionShape& with, MatrixView to) {
    return ops::Attention{.q = fused.col_range(0, width),
                          .k = fused.col_range(width, kv_width),
                          .v = fused.col_range(width + kv_width, kv_width),
                          .offsets = test.offsets,
                          .shape = with,
                          .y = to};
  };

  Matrix expected;
  for (const Placed placed : {Placed::oddly, Placed::aligned}) {
    SCOPED_TRACE(cat(name_of(dtype), ", ", name_of(placed), ", ", shape.heads, "/", shape.kv_heads, " x ", d,
                     ", window ", shape.window, ", chunk ", shape.chunk, ", cap ", shape.soft_cap,
                     test.slopes ? ", slopes" : "", test.sinks ? ", sinks" : ""));
    Operand all(backend, dtype, tokens, width + 2 * kv_width, normal(11), placed),
        y(backend, dtype, tokens, width, nullptr, placed);
    backend.run(attention(all.device(), shape, y.device()));
    if (placed == Placed::oddly) {
      reference(attention(all.host, host_shape, y.host));
      expected = Matrix(host_memory(), dtype, tokens, width);
      reference(ops::Convert{.x = y.host, .y = expected});
    }
    reference(ops::Convert{.x = expected, .y = y.host});  // the same input in both places

    const auto longest_head = [&](int64_t first, int64_t end) {
      double longest = 0;
      for (int64_t r = 0; r < tokens; ++r) {
        for (int64_t head = first; head < end; head += d) {
          double squares = 0;
          for (int64_t c = head; c < head + d; ++c) squares += element(all.host, r, c) * element(all.host, r, c);
          longest = std::max(longest, std::sqrt(squares));
        }
      }
      return longest;
    };
    double largest = 0;
    for (int64_t r = 0; r < tokens; ++r) {
      for (int64_t c = width + kv_width; c < all.host.cols(); ++c)
        largest = std::max(largest, std::abs(element(all.host, r, c)));
    }
    const double lengths = longest_head(0, width) * longest_head(width, width + kv_width);
    const double score_error =
        kUnit * (static_cast<double>(d + 2) * shape.scale * lengths + 16 * shape.soft_cap +
                 (test.slopes ? 4 * 0.5 * static_cast<double>(tokens) : 0) + (test.sinks ? 4 * 40 : 0));
    const double limit =
        (2 * score_error + static_cast<double>(2 * tokens + 8) * kUnit + rounding_error(dtype, 1)) * largest;
    expect_close(y, [&](int64_t, int64_t) { return limit; });

    // The last queries of the last sequence give the same rows.
    const int64_t first = test.offsets.size() < 2 ? 0 : test.offsets[test.offsets.size() - 2], keys = tokens - first;
    for (const int64_t queries : {int64_t{1}, int64_t{3}, keys}) {
      if (queries > keys) continue;
      Operand last(backend, dtype, queries, width, nullptr, placed);
      const auto of = [&](int64_t rows, int64_t column, int64_t cols) {
        return all.device().block(tokens - rows, rows, column, cols);
      };
      backend.run(ops::CachedAttention{.q = of(queries, 0, width),
                                       .k = of(keys, width, kv_width),
                                       .v = of(keys, width + kv_width, kv_width),
                                       .shape = shape,
                                       .y = last.device()});
      reference(ops::Convert{.x = expected.view().row_range(tokens - queries, queries), .y = last.host});
      expect_close(last, [&](int64_t, int64_t) { return limit; });
    }
  }
}

TEST_P(ForwardParity, AttentionIsCausalInsideEachSequence) {
  const AttentionCase cases[] = {{{0, 1}, {1, 1, 64, 0.125F}},       {{0, 3, 4, 4, 37}, {6, 2, 16, 0.25F}},
                                 {{0, 65, 200}, {9, 3, 64, 0.125F}}, {{0, 130}, {5, 1, 33, 0.5F}},
                                 {{0, 70}, {4, 4, 80, 0.1F}},        {{0}, {4, 2, 8, 0.1F}}};
  for (const DType dtype : float_dtypes()) {
    for (const AttentionCase& test : cases) expect_attention(backend(), dtype, test);
  }
}

TEST_P(ForwardParity, AttentionSeesItsWindowOfItsChunk) {
  const std::vector<int64_t> offsets = {0, 7, 7, 8, 237};
  for (const auto& [window, chunk] : {Size{1, 0},
                                      {3, 0},
                                      {40, 0},
                                      {64, 0},
                                      {100, 0},
                                      {1000, 0},
                                      {0, 1},
                                      {0, 5},
                                      {0, 64},
                                      {0, 100},
                                      {0, 1000},
                                      {30, 50},
                                      {70, 33}}) {
    AttentionShape shape = {4, 2, 16, 0.25F};
    shape.window = window;
    shape.chunk = chunk;
    for (const DType dtype : float_dtypes()) {
      expect_attention(backend(), dtype, {offsets, shape});
    }
  }
}

TEST_P(ForwardParity, AttentionScoresHaveCapsSlopesAndSinks) {
  const std::vector<int64_t> offsets = {0, 5, 150};
  AttentionShape plain = {4, 1, 32, 0.5F}, capped = plain, windowed = plain;
  capped.soft_cap = 5;
  windowed.window = 9;
  const AttentionCase cases[] = {{offsets, capped},
                                 {offsets, plain, true, false},
                                 {offsets, plain, false, true},
                                 {offsets, capped, true, true},
                                 {offsets, windowed, false, true},
                                 {offsets, windowed, true, false}};
  for (const DType dtype : float_dtypes()) {
    for (const AttentionCase& test : cases) expect_attention(backend(), dtype, test);
  }
}

TEST_P(ForwardParity, AttentionWithEverythingForHeadsOfAllLengths) {
  for (const int64_t head_dim : {1, 24, 64, 96, 128, 144, 192, 256, 320}) {
    AttentionShape shape = {3, 1, head_dim, 0.3F};
    shape.soft_cap = 20;
    shape.window = 30;
    shape.chunk = 50;
    const std::vector<int64_t> offsets = {0, head_dim == 64 || head_dim == 256 ? 200 : 60};
    for (const DType dtype : float_dtypes()) {
      expect_attention(backend(), dtype, {offsets, shape, true, true});
    }
  }
}

constexpr Activation kActivations[] = {Activation::silu,       Activation::gelu,         Activation::gelu_tanh,
                                       Activation::relu,       Activation::relu_squared, Activation::clamped_swiglu,
                                       Activation::quick_gelu, Activation::sigmoid,      Activation::softplus,
                                       Activation::identity};

// exp(u) with u wrong by a few 2^-24 |u| is wrong by that factor; |u| is at most about x^2 here.
TEST_P(ForwardParity, GateOfEveryActivation) {
  for (const Activation activation : kActivations) {
    for (const DType dtype : float_dtypes()) {
      for (const bool with_up : {true, false}) {
        for (const Placed placed : kPlaced) {
          SCOPED_TRACE(cat("activation ", static_cast<int>(activation), ", ", name_of(dtype), ", ", name_of(placed),
                           with_up ? "" : ", no up"));
          for (const Size size : kSizes) {
            Operand gate(backend(), dtype, size.rows, size.cols, normal(14, 3), placed),
                up(backend(), dtype, size.rows, size.cols, normal(15, 5), placed),
                y(backend(), dtype, size.rows, size.cols, nullptr, placed);
            backend().run(ops::Gate{.gate = gate.device(),
                                    .up = with_up ? up.device() : MatrixView(),
                                    .activation = activation,
                                    .y = y.device()});
            reference(ops::Gate{.gate = gate.host,
                                .up = with_up ? ConstMatrixView(up.host) : ConstMatrixView(),
                                .activation = activation,
                                .y = y.host});
            expect_close(y, [&](int64_t r, int64_t c) {
              const double x = element(gate.host, r, c);
              return (16 + 8 * x * x) * kUnit * std::abs(element(y.host, r, c)) + 1e-37;
            });
          }
        }
      }
    }
  }
}

// Its sums of terms of both signs are wrong by a few 2^-24 of the larger terms.
TEST_P(ForwardParity, XieluOfBothSides) {
  for (const DType dtype : float_dtypes()) {
    for (const Placed placed : kPlaced) {
      SCOPED_TRACE(cat(name_of(dtype), ", ", name_of(placed)));
      for (const Size size : kSizes) {
        Operand x(backend(), dtype, size.rows, size.cols, normal(17, 3), placed),
            y(backend(), dtype, size.rows, size.cols, nullptr, placed),
            alphas(backend(), DType::f32, 2, 1, normal(18, 1));
        backend().run(ops::Xielu{.x = x.device(), .alphas = alphas.device(), .y = y.device()});
        reference(ops::Xielu{.x = x.host, .alphas = alphas.host, .y = y.host});
        expect_close(y, [&](int64_t r, int64_t c) {
          const double value = element(x.host, r, c), p = 3 + std::abs(element(alphas.host, 0, 0)),
                       n = 3 + std::abs(element(alphas.host, 1, 0));
          return 16 * kUnit * (std::abs(value) + p * value * value + n * (1 + std::abs(value)));
        });
      }
    }
  }
}

// k is cut into stretches, n into panels, with rests.
struct LinearShape {
  int64_t m, n, k;
};
constexpr LinearShape kFusedShapes[] = {{1, 1, 1}, {5, 33, 40}, {70, 96, 64}, {300, 130, 353}, {65, 576, 96}};

// Bit for bit what linears and a gate give, whatever the way.
TEST_P(ForwardParity, GatedLinearIsLinearsAndTheirGate) {
  for (const LinearShape shape : kFusedShapes) {
    for (const DType dtype : float_dtypes()) {
      for (const bool with_up : {true, false}) {
        for (const bool with_bias : {true, false}) {
          SCOPED_TRACE(cat(shape.m, " x ", shape.n, " x ", shape.k, ", ", name_of(dtype), with_up ? "" : ", no up",
                           with_bias ? ", biases" : ""));
          const auto operand = [&](int64_t rows, int64_t cols, int seed) {
            return Operand(backend(), dtype, rows, cols, normal(static_cast<unsigned>(seed), 0.3));
          };
          Operand x = operand(shape.m, shape.k, 41), gate = operand(shape.n, shape.k, 42),
                  up = operand(shape.n, shape.k, 43), gate_bias = operand(1, shape.n, 44),
                  up_bias = operand(1, shape.n, 45), y = operand(shape.m, shape.n, 46),
                  side = operand(shape.m, shape.n, 47), other = operand(shape.m, shape.n, 48),
                  expected = operand(shape.m, shape.n, 49);
          const auto there = [](Operand& matrix, bool wanted) { return wanted ? matrix.device() : MatrixView(); };
          const Activation activation = with_bias ? Activation::gelu_tanh : Activation::silu;
          backend().run(ops::GatedLinear{.x = x.device(),
                                         .weights = {.gate = gate.device(),
                                                     .gate_bias = there(gate_bias, with_bias),
                                                     .up = there(up, with_up),
                                                     .up_bias = there(up_bias, with_up && with_bias),
                                                     .activation = activation},
                                         .y = y.device()});
          backend().run(ops::Linear{
              .x = x.device(), .w = gate.device(), .bias = there(gate_bias, with_bias), .y = side.device()});
          if (with_up)
            backend().run(
                ops::Linear{.x = x.device(), .w = up.device(), .bias = there(up_bias, with_bias), .y = other.device()});
          backend().run(ops::Gate{
              .gate = side.device(), .up = there(other, with_up), .activation = activation, .y = expected.device()});
          const Matrix is = y.fetch(), should_be = expected.fetch();
          EXPECT_EQ(std::memcmp(is.view().data, should_be.view().data, is.bytes()), 0);
        }
      }
    }
  }
}

TEST_P(ForwardParity, AddedLinearIsLinearAndSum) {
  for (const LinearShape shape : kFusedShapes) {
    for (const DType dtype : float_dtypes()) {
      for (const bool with_bias : {true, false}) {
        SCOPED_TRACE(cat(shape.m, " x ", shape.n, " x ", shape.k, ", ", name_of(dtype), with_bias ? ", bias" : ""));
        Operand x(backend(), dtype, shape.m, shape.k, normal(51)), w(backend(), dtype, shape.n, shape.k, normal(52)),
            bias(backend(), dtype, 1, shape.n, normal(53)), y(backend(), DType::f32, shape.m, shape.n, normal(54)),
            expected(backend(), DType::f32, shape.m, shape.n, normal(54)), product(backend(), dtype, shape.m, shape.n);
        const MatrixView bias_there = with_bias ? bias.device() : MatrixView();
        backend().run(
            ops::AddLinear{.x = x.device(), .w = w.device(), .bias = bias_there, .factor = 0.7F, .y = y.device()});
        backend().run(ops::Linear{.x = x.device(), .w = w.device(), .bias = bias_there, .y = product.device()});
        backend().run(ops::Add{.x = product.device(), .factor = 0.7F, .y = expected.device()});
        const Matrix is = y.fetch(), should_be = expected.fetch();
        EXPECT_EQ(std::memcmp(is.view().data, should_be.view().data, is.bytes()), 0);
      }
    }
  }
}

TEST_P(ForwardParity, ActivationsOfHugeInputsStayFinite) {
  const std::vector<double> huge = {-1e4, -200, -90, -88, 88, 90, 200, 1e4};
  for (const Activation activation : kActivations) {
    for (const double factor : {1.0, 300.0, -300.0}) {
      for (const Placed placed : kPlaced) {
        Operand gate(
            backend(), DType::f32, 1, 8, [&](int64_t, int64_t c) { return huge[c]; }, placed);
        Operand up(
            backend(), DType::f32, 1, 8, [&](int64_t, int64_t) { return factor; }, placed),
            y(backend(), DType::f32, 1, 8, nullptr, placed);
        backend().run(ops::Gate{.gate = gate.device(), .up = up.device(), .activation = activation, .y = y.device()});
        reference(ops::Gate{.gate = gate.host, .up = up.host, .activation = activation, .y = y.host});
        expect_close(y, [&](int64_t, int64_t c) { return 4 * kUnit * std::abs(element(y.host, 0, c)) + 1e-30; });
        for (int64_t c = 0; c < 8; ++c) EXPECT_TRUE(std::isfinite(element(y.host, 0, c)));
      }
    }
  }
}

// A hyperbolic tangent is wrong by a few 2^-24 of itself, near zero too.
TEST_P(ForwardParity, CappedValuesKeepTheirBound) {
  for (const ops::Cap::Kind kind : {ops::Cap::hard, ops::Cap::soft}) {
    for (const DType dtype : float_dtypes()) {
      for (const Placed placed : kPlaced) {
        for (const double deviation : {0.01, 1.0, 30.0, 1e4}) {
          SCOPED_TRACE(cat(kind == ops::Cap::hard ? "hard, " : "soft, ", name_of(dtype), ", ", name_of(placed),
                           ", deviation ", deviation));
          for (const Size size : kSizes) {
            Operand x(backend(), dtype, size.rows, size.cols, normal(16, deviation), placed);
            backend().run(ops::Cap{.kind = kind, .bound = 1.75F, .x = x.device()});
            reference(ops::Cap{.kind = kind, .bound = 1.75F, .x = x.host});
            expect_close(x, [&](int64_t r, int64_t c) {
              return kind == ops::Cap::hard ? 0 : 12 * kUnit * std::abs(element(x.host, r, c));
            });
          }
        }
      }
    }
  }
}

TEST_P(ForwardParity, CappedInfinitiesAreBoundsAndNaNStays) {
  for (const ops::Cap::Kind kind : {ops::Cap::hard, ops::Cap::soft}) {
    for (const Placed placed : kPlaced) {
      Operand x(
          backend(), DType::f32, 1, 8,
          [](int64_t, int64_t c) { return std::vector<double>{INFINITY, -INFINITY, NAN, 0, 1e38, -1e38, -0.0, 1}[c]; },
          placed);
      backend().run(ops::Cap{.kind = kind, .bound = 30, .x = x.device()});
      const Matrix got = x.fetch();
      EXPECT_EQ(element(got, 0, 0), 30);
      EXPECT_EQ(element(got, 0, 1), -30);
      EXPECT_TRUE(std::isnan(element(got, 0, 2)));
      EXPECT_EQ(element(got, 0, 3), 0);
      EXPECT_EQ(element(got, 0, 4), 30);
      EXPECT_EQ(element(got, 0, 5), -30);
    }
  }
}

}  // namespace
}  // namespace gptq
