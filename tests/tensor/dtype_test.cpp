#include "tensor/dtype.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace gptq {
namespace {

Half half_of_bits(int bits) {
  Half half;
  half.bits = static_cast<uint16_t>(bits);
  return half;
}

Bf16 bf16_of_bits(int bits) {
  Bf16 bf16;
  bf16.bits = static_cast<uint16_t>(bits);
  return bf16;
}

uint16_t to_half(double value) { return Half(static_cast<float>(value)).bits; }
uint16_t to_bf16(double value) { return Bf16(static_cast<float>(value)).bits; }

// By definition (-1)^sign 2^(exponent - 15) (1 + mantissa / 1024), subnormals with exponent 1 and no leading one.
TEST(Half, EveryPatternHasTheValueOfTheStandard) {
  for (int bits = 0; bits < 65536; ++bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const auto value = static_cast<float>(half_of_bits(bits));
    if (exponent == 31) {
      EXPECT_EQ(std::isnan(value), mantissa != 0) << bits;
      EXPECT_EQ(std::isinf(value), mantissa == 0) << bits;
    } else {
      EXPECT_EQ(std::abs(value), std::ldexp(exponent == 0 ? mantissa : 1024 + mantissa, std::max(exponent, 1) - 25))
          << bits;
    }
    EXPECT_EQ(std::signbit(value), bits >= 0x8000) << bits;
  }
}

TEST(Half, EveryNumberSurvivesTheRoundTrip) {
  for (int bits = 0; bits < 65536; ++bits) {
    const auto value = static_cast<float>(half_of_bits(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(Half(value)))) << bits;
    } else {
      EXPECT_EQ(Half(value).bits, bits);
    }
  }
}

// Between two neighbours the midpoint rounds to the even one, all else to the nearer one.
TEST(Half, RoundsToNearestTiesToEven) {
  for (int bits = 0; bits < 0x7bff; ++bits) {
    const double low = static_cast<float>(half_of_bits(bits)), high = static_cast<float>(half_of_bits(bits + 1));
    const auto middle = static_cast<float>((low + high) / 2);
    EXPECT_EQ(Half(middle).bits, bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(Half(std::nextafter(middle, 0.0F)).bits, bits);
    EXPECT_EQ(Half(std::nextafter(middle, 1e9F)).bits, bits + 1);
    EXPECT_EQ(Half(-middle).bits, (bits % 2 == 0 ? bits : bits + 1) | 0x8000);
  }
}

TEST(Half, OverflowsToInfinityFromTheMiddleOn) {
  EXPECT_EQ(to_half(65519.996), 0x7bff);
  EXPECT_EQ(to_half(65520), 0x7c00);
  EXPECT_EQ(to_half(-1e30), 0xfc00);
  EXPECT_EQ(to_half(std::numeric_limits<double>::infinity()), 0x7c00);
}

TEST(Half, UnderflowsToZeroWithItsSign) {
  EXPECT_EQ(to_half(0x1p-25), 0);
  EXPECT_EQ(to_half(-0x1p-26), 0x8000);
  EXPECT_EQ(to_half(0x1.000002p-25), 1);
  EXPECT_EQ(to_half(-0.0), 0x8000);
}

TEST(Bf16, IsTheUpperHalfOfAFloat) {
  for (int bits = 0; bits < 65536; ++bits) {
    const auto value = static_cast<float>(bf16_of_bits(bits));
    EXPECT_EQ(std::bit_cast<uint32_t>(value), static_cast<uint32_t>(bits) << 16);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(Bf16(value)))) << bits;
    } else {
      EXPECT_EQ(Bf16(value).bits, bits);
    }
  }
}

TEST(Bf16, RoundsToNearestTiesToEven) {
  EXPECT_EQ(to_bf16(1 + 0x1p-8), 0x3f80);       // midpoint of 1 and 1 + 2^-7: rounds down to the even one
  EXPECT_EQ(to_bf16(1 + 3 * 0x1p-8), 0x3f82);   // rounds up to the even one
  EXPECT_EQ(to_bf16(1 + 0x1.0002p-8), 0x3f81);  // just above the midpoint
  EXPECT_EQ(to_bf16(-1 - 3 * 0x1p-8), 0xbf82);
  EXPECT_EQ(to_bf16(3.4e38), 0x7f80);  // above the largest number: infinity
  EXPECT_EQ(to_bf16(0x1.fep127), 0x7f7f);
}

// A NaN whose payload lies in the lower half only must not become infinity.
TEST(Bf16, KeepsNaN) {
  const float nan = std::bit_cast<float>(0x7f800001U);
  EXPECT_TRUE(std::isnan(static_cast<float>(Bf16(nan))));
  EXPECT_TRUE(std::isnan(static_cast<float>(Half(nan))));
}

TEST(DType, NamesAndSizes) {
  EXPECT_EQ(size_of(DType::f32), 4u);
  EXPECT_EQ(size_of(DType::bf16), 2u);
  EXPECT_EQ(size_of(DType::u8), 1u);
  EXPECT_EQ(name_of(DType::bf16), "bfloat16");
  EXPECT_TRUE(is_float(DType::f16));
  EXPECT_FALSE(is_float(DType::i32));
}

}  // namespace
}  // namespace gptq
