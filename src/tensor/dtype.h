// Element types and their exact conversions.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace gptq {

enum class DType : uint8_t { f32, f16, bf16, i32, u8 };

constexpr size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

// PyTorch's name: "float32", "float16", "bfloat16", "int32", "uint8".
constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "float32";
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    case DType::i32:
      return "int32";
    case DType::u8:
      return "uint8";
  }
  return "?";
}

constexpr bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

// bfloat16: the upper half of a float. Rounds to nearest, ties to even; NaN stays NaN.
struct Bf16 {
  uint16_t bits = 0;
  Bf16() = default;
  explicit Bf16(float value) {
    const auto raw = std::bit_cast<uint32_t>(value);
    const bool nan = (raw & 0x7fffffffU) > 0x7f800000U;
    bits = static_cast<uint16_t>(nan ? (raw >> 16) | 0x40U : (raw + 0x7fffU + ((raw >> 16) & 1U)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

// IEEE binary16. Rounds to nearest, ties to even; overflows to infinity; NaN stays NaN.
struct Half {
  uint16_t bits = 0;
  Half() = default;
  explicit Half(float value) {
    const auto raw = std::bit_cast<uint32_t>(value);
    const uint32_t sign = (raw >> 16) & 0x8000U;
    const uint32_t magnitude = raw & 0x7fffffffU;
    if (magnitude >= 0x47800000U) {  // 65536 and above, infinity, NaN
      bits = static_cast<uint16_t>(sign | (magnitude > 0x7f800000U ? 0x7e00U : 0x7c00U));
    } else if (magnitude < 0x38800000U) {  // below 2^-14: adding 0.5 rounds to multiples of 2^-24
      const float rounded = std::bit_cast<float>(magnitude) + 0.5F;
      bits = static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(rounded) - std::bit_cast<uint32_t>(0.5F)));
    } else {
      const uint32_t even = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
      bits = static_cast<uint16_t>(sign | ((even - 0x38000000U) >> 13));
    }
  }
  explicit operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1fU;
    const uint32_t mantissa = bits & 0x3ffU;
    if (exponent == 0x1fU) return std::bit_cast<float>(sign | 0x7f800000U | (mantissa << 13));
    if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
    const float value = static_cast<float>(mantissa) * 0x1p-24F;
    return sign != 0 ? -value : value;
  }
};

}  // namespace gptq
