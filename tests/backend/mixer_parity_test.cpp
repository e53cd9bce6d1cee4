// Ops that mix the tokens of a sequence without attention, against their references, on every backend.
#include <algorithm>

#include "backend/devices.h"

namespace gptq {
namespace {

using MixerParity = OnEveryDevice;
INSTANTIATE_TEST_SUITE_P(Backends, MixerParity, testing::ValuesIn(devices()), name_of_device);

// Sums of a few products in f32, in any order. The activation is wrong by a few units of it and of its argument.
TEST_P(MixerParity, ConvolutionsBeginAnewWithEachSequence) {
  const std::vector<int64_t> offsets = {0, 1, 1, 6, 8, 30};
  for (const int64_t channels : {1, 7, 24, 130}) {
    for (const int64_t taps : {1, 3, 4, 9}) {
      for (const DType dtype : float_dtypes()) {
        for (const auto& [placed, activation, has_bias] :
             {std::tuple(Placed::oddly, Activation::silu, true), std::tuple(Placed::aligned, Activation::silu, false),
              std::tuple(Placed::aligned, Activation::identity, true)}) {
          SCOPED_TRACE(cat(channels, " channels, ", taps, " taps, ", name_of(dtype), ", ", name_of(placed)));
          Operand x(backend(), dtype, 30, channels, normal(1), placed),
              weight(backend(), DType::f32, channels, taps, normal(2)),
              bias(backend(), DType::f32, 1, channels, normal(3)), y(backend(), dtype, 30, channels, nullptr, placed);
          backend().run(ops::CausalConvolution{.x = x.device(),
                                               .weight = weight.device(),
                                               .bias = has_bias ? bias.device() : MatrixView(),
                                               .offsets = offsets,
                                               .activation = activation,
                                               .y = y.device()});
          reference(ops::CausalConvolution{.x = x.host,
                                           .weight = weight.host,
                                           .bias = has_bias ? ConstMatrixView(bias.host) : ConstMatrixView(),
                                           .offsets = offsets,
                                           .activation = activation,
                                           .y = y.host});
          expect_close(y, [&](int64_t r, int64_t c) {
            double terms = has_bias ? std::abs(element(bias.host, 0, c)) : 0;
            for (int64_t back = 0; back < std::min(taps, r + 1); ++back)
              terms += std::abs(element(weight.host, c, taps - 1 - back) * element(x.host, r - back, c));
            return static_cast<double>(taps + 20) * kUnit * (terms + terms * terms);
          });
        }
      }
    }
  }
}

TEST_P(MixerParity, DecaysAreFiniteForInputsOfAnySize) {
  for (const DType dtype : float_dtypes()) {
    for (const double deviation : {0.1, 3.0, 100.0}) {
      Operand x(backend(), dtype, 9, 33, normal(4, deviation)), rate(backend(), DType::f32, 1, 33, normal(5)),
          bias(backend(), DType::f32, 1, 33, normal(6)), y(backend(), DType::f32, 9, 33);
      backend().run(ops::LogDecay{.x = x.device(), .log_rate = rate.device(), .bias = bias.device(), .y = y.device()});
      reference(ops::LogDecay{.x = x.host, .log_rate = rate.host, .bias = bias.host, .y = y.host});
      // The sum of x and the bias is rounded, and so is its exponential.
      expect_close(y, [&](int64_t r, int64_t c) {
        const double sum = std::abs(element(x.host, r, c)) + std::abs(element(bias.host, 0, c));
        return kUnit * (16 + 4 * sum) * std::abs(element(y.host, r, c)) + 1e-37;
      });
    }
  }
}

struct DeltaCase {
  std::vector<int64_t> offsets;
  DeltaShape shape;
  double decay = 1;  // the mean of -log_decay
};

// Keys of length one, as in every model: then a state is at most the sum of the decayed |v|. Its elements pass about
// three sums of `key_dim` or 64 products for each chunk they live.
void expect_delta_rule(Backend& backend, DType dtype, const DeltaCase& test, Placed placed) {
  const DeltaShape& shape = test.shape;
  const int64_t tokens = test.offsets.back();
  const double length = 1 / std::sqrt(static_cast<double>(shape.key_dim));
  const auto draw = [&](unsigned seed) {
    return [random = std::mt19937(seed)](int64_t, int64_t) mutable {
      return static_cast<double>(random()) / static_cast<double>(std::mt19937::max());
    };
  };
  Operand q(backend, dtype, tokens, shape.key_heads * shape.key_dim, normal(1, length), placed),
      k(backend, dtype, tokens, shape.key_heads * shape.key_dim, normal(2, length), placed),
      v(backend, dtype, tokens, shape.value_heads * shape.value_dim, normal(3), placed),
      y(backend, dtype, tokens, shape.value_heads * shape.value_dim, nullptr, placed),
      log_decay(backend, DType::f32, tokens, shape.value_heads,
                [&, next = draw(4)](int64_t r, int64_t c) mutable { return -2 * test.decay * next(r, c); }),
      beta(backend, DType::f32, tokens, shape.value_heads, draw(5));
  const auto op = [&](auto&& of) {
    return ops::GatedDeltaRule{.q = of(q),
                               .k = of(k),
                               .v = of(v),
                               .log_decay = of(log_decay),
                               .beta = of(beta),
                               .offsets = test.offsets,
                               .shape = shape,
                               .y = of(y)};
  };
  // Keys of length one exactly, but for the rounding of their elements.
  for (int64_t r = 0; r < tokens; ++r) {
    for (int64_t head = 0; head < shape.key_heads; ++head) {
      double squares = 0;
      const auto at = [&](int64_t i) { return element(k.host, r, head * shape.key_dim + i); };
      for (int64_t i = 0; i < shape.key_dim; ++i) squares += at(i) * at(i);
      for (int64_t i = 0; i < shape.key_dim; ++i)
        set_element(k.host, r, head * shape.key_dim + i, at(i) / std::sqrt(std::max(squares, 1e-30)));
    }
  }
  k.copy_to_device();
  backend.run(op([](Operand& operand) { return operand.device(); }));
  reference(op([](Operand& operand) { return MatrixView(operand.host); }));
  double largest = 0;
  for (int64_t r = 0; r < tokens; ++r) {
    for (int64_t c = 0; c < y.host.cols(); ++c) largest = std::max(largest, std::abs(element(y.host, r, c)));
  }
  const double chunks = std::min(8.0, 1 + static_cast<double>(tokens) / 64);
  const double limit = kUnit * static_cast<double>(3 * shape.key_dim + 192) * chunks * std::max(1.0, largest);
  expect_close(y, [&](int64_t, int64_t) { return limit; });
}

TEST_P(MixerParity, TheDeltaRuleInChunksIsTheDeltaRule) {
  for (const int64_t tokens : {1, 2, 16, 63, 64, 65, 127, 200}) {
    for (const DType dtype : float_dtypes()) {
      SCOPED_TRACE(cat(tokens, " tokens, ", name_of(dtype)));
      expect_delta_rule(backend(), dtype, {{0, tokens}, {2, 4, 16, 24}, 0.1}, Placed::oddly);
    }
  }
}

TEST_P(MixerParity, TheDeltaRuleOfHeadsOfAllSizes) {
  for (const DeltaShape shape : {DeltaShape{1, 1, 1, 1}, DeltaShape{1, 3, 7, 5}, DeltaShape{2, 2, 33, 20},
                                 DeltaShape{1, 2, 128, 128}, DeltaShape{1, 1, 96, 192}, DeltaShape{1, 1, 256, 64}}) {
    for (const DType dtype : float_dtypes()) {
      SCOPED_TRACE(cat("keys of ", shape.key_dim, ", values of ", shape.value_dim, ", ", name_of(dtype)));
      expect_delta_rule(backend(), dtype, {{0, 100}, shape, 0.02}, Placed::aligned);
    }
  }
}

TEST_P(MixerParity, TheDeltaRuleBeginsAnewWithEachSequence) {
  for (const double decay : {0.001, 0.5, 30.0}) {
    for (const DType dtype : float_dtypes()) {
      SCOPED_TRACE(cat("decay ", decay, ", ", name_of(dtype)));
      expect_delta_rule(backend(), dtype, {{0, 1, 65, 65, 130, 200, 264}, {2, 4, 24, 16}, decay}, Placed::oddly);
    }
  }
}

TEST_P(MixerParity, TheDeltaRuleOfALongSequence) {
  for (const double decay : {0.0, 0.01}) {
    for (const DType dtype : {DType::f32, DType::bf16})
      expect_delta_rule(backend(), dtype, {{0, 2048}, {1, 2, 32, 16}, decay}, Placed::aligned);
  }
}

}  // namespace
}  // namespace gptq
