// Floats of 4 and 8 bits, as quantized weights and their scales have them.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace gptq {

// The value of an e4m3 number (S.EEEE.MMM, bias 7): 0x7f and 0xff are NaN, there is no infinity, the largest is 448.
// Format: Micikevicius et al., FP8 Formats for Deep Learning, https://arxiv.org/abs/2209.05433, table 1.
// Normal numbers: shifts exponent and mantissa and changes the bias to that of f32; the others are multiples of 2^-9.
// Branch-free, so that loops are vectorized.
inline float e4m3_value(uint8_t bits) {
  const uint32_t magnitude = bits & 0x7fU;
  const uint32_t normal = (magnitude << 20) + (120U << 23);
  const auto small = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-9F);
  const uint32_t is_small = 0U - static_cast<uint32_t>(magnitude < 8);
  const uint32_t is_nan = 0U - static_cast<uint32_t>(magnitude == 0x7fU);
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80U) << 24;
  return std::bit_cast<float>((small & is_small) | (normal & ~is_small) | (0x7fc00000U & is_nan) | sign);
}

// Scales that are powers of two (OCP Microscaling Formats, E8M0): 2^(bits - 127), and NaN for 255.
inline float e8m0_value(uint8_t bits) {
  return bits == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0F, bits - 127);
}

// The values of e2m1 numbers (OCP Microscaling Formats, FP4): S.EE.M, bias 1.
inline constexpr float kE2m1Values[16] = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6, -0.0F, -0.5F, -1, -1.5F, -2, -3, -4, -6};

}  // namespace gptq
