// Products of a few rows, with packed weights and with plain ones.
#include "devices.h"
#include "ops/packed.h"

namespace gptq {
namespace {

class PackedParity : public OnEveryDevice {};

struct PackedCase {
  int64_t outputs, inputs, group_size;
};

// Sizes in units of the codes that fill whole words: few and many outputs, one group, and a last group that is shorter.
std::vector<PackedCase> cases_of(int bits) {
  const int64_t unit = bits == 3 ? 32 : 32 / bits;
  return {{1, unit, unit},           {7, 3 * unit, unit},        {64, 8 * unit, 4 * unit},
          {130, 9 * unit, 4 * unit}, {1030, 3 * unit, 3 * unit}, {48, 20 * unit, 8 * unit}};
}

// A packed weight on the device and on the host.
struct PackedOperand {
  PackedOperand(Backend& backend, int bits, const PackedCase& c, DType scale_dtype)
      : words(backend, DType::i32, c.inputs * bits / 32, c.outputs,
              [random = std::mt19937(5)](int64_t, int64_t) mutable { return static_cast<int32_t>(random()); }),
        scales(backend, scale_dtype, (c.inputs + c.group_size - 1) / c.group_size, c.outputs, normal(6, 0.1)),
        zeros(backend, DType::u8, scales.host.rows(), c.outputs,
              [random = std::mt19937(7), bits](int64_t, int64_t) mutable { return random() % (1U << bits); }),
        there{words.device(), scales.device(), zeros.device(), bits, c.group_size},
        here{words.host, scales.host, zeros.host, bits, c.group_size} {}
  Operand words, scales, zeros;
  PackedWeight there, here;
};

TEST_P(PackedParity, DequantizedWeightsAreTheReferences) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const DType dtype : float_dtypes()) {
      for (const PackedCase& c : cases_of(bits)) {
        SCOPED_TRACE(cat(bits, " bits, ", name_of(dtype), ", ", c.outputs, " x ", c.inputs, " / ", c.group_size));
        PackedOperand weight(backend(), bits, c, DType::f16);
        Operand w(backend(), dtype, c.outputs, c.inputs);
        backend().run(ops::DequantizePacked{.weight = weight.there, .w = w.device()});
        reference(ops::DequantizePacked{.weight = weight.here, .w = w.host});
        expect_same(w);
      }
    }
  }
}

// Terms are x scale (code - zero), or x scale code and x scale zero apart: a sum of 2 k of them, each at most
// |x| |scale| 2^bits.
TEST_P(PackedParity, RowsTimesCodes) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const DType dtype : float_dtypes()) {
      for (const PackedCase& c : cases_of(bits)) {
        for (const int64_t rows : {1, 2, 3, 4, 6}) {
          SCOPED_TRACE(cat(bits, " bits, ", name_of(dtype), ", ", rows, " rows, ", c.outputs, " x ", c.inputs, " / ",
                           c.group_size));
          PackedOperand weight(backend(), bits, c, rows == 2 ? DType::f32 : DType::f16);
          Operand x(backend(), dtype, rows, c.inputs, normal(8)), bias(backend(), dtype, 1, c.outputs, normal(9)),
              y(backend(), rows == 3 ? DType::f32 : dtype, rows, c.outputs);
          const bool with_bias = rows > 1;
          backend().run(ops::PackedLinear{.x = x.device(),
                                          .weight = weight.there,
                                          .bias = with_bias ? bias.device() : ConstMatrixView(),
                                          .y = y.device()});
          reference(ops::PackedLinear{.x = x.host,
                                      .weight = weight.here,
                                      .bias = with_bias ? bias.host.view() : ConstMatrixView(),
                                      .y = y.host});
          expect_close(y, [&](int64_t r, int64_t output) {
            double sum = with_bias ? std::abs(element(bias.host, 0, output)) : 0;
            for (int64_t k = 0; k < c.inputs; ++k)
              sum += std::abs(element(x.host, r, k) * element(weight.scales.host, k / c.group_size, output)) *
                     (1U << bits);
            // Where w is computed in x's dtype first, each of its elements is rounded to it.
            const double of_weights = 2 * rounding_error(dtype, 1);
            return sum * (static_cast<double>(2 * c.inputs) * kUnit + of_weights);
          });
        }
      }
    }
  }
}

TEST_P(PackedParity, NarrowLinear) {
  for (const DType dtype : float_dtypes()) {
    for (const DType stored : {dtype, DType::bf16}) {
      for (const auto& [rows, outputs, inputs] :
           {std::tuple{1, 1, 1}, {1, 300, 17}, {4, 33, 130}, {2, 1027, 64}, {7, 20, 31}}) {
        SCOPED_TRACE(cat(name_of(dtype), " x ", name_of(stored), ": ", rows, " x ", outputs, " x ", inputs));
        Operand x(backend(), dtype, rows, inputs, normal(1)), w(backend(), stored, outputs, inputs, normal(2)),
            bias(backend(), dtype, 1, outputs, normal(3)), y(backend(), dtype, rows, outputs);
        backend().run(ops::NarrowLinear{.x = x.device(), .w = w.device(), .bias = bias.device(), .y = y.device()});
        reference(ops::NarrowLinear{.x = x.host, .w = w.host, .bias = bias.host, .y = y.host});
        expect_close(y, [&](int64_t r, int64_t output) {
          double sum = std::abs(element(bias.host, 0, output));
          for (int64_t k = 0; k < x.host.cols(); ++k)
            sum += std::abs(element(x.host, r, k) * element(w.host, output, k));
          return sum * static_cast<double>(inputs + 2) * kUnit;
        });
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, PackedParity, testing::ValuesIn(devices()), name_of_device);

}  // namespace
}  // namespace gptq
