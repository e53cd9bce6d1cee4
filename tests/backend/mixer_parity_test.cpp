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

}  // namespace
}  // namespace gptq
