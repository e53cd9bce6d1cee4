// One vector register, for the sources that are compiled once per instruction set; no other file includes this.
// Everything is always inlined and in an unnamed namespace, so the linker never merges copies of different instruction
// sets.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#include <arm_neon.h>
#endif

namespace gptq {
namespace GPTQ_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int64_t kLanes = 16;
#elif defined(__AVX__)
constexpr int64_t kLanes = 8;
#else
constexpr int64_t kLanes = 4;
#endif

// Registers of floats, of masks or integers, and of dwords.
using Lanes = float __attribute__((vector_size(4 * kLanes)));
using IntLanes = int32_t __attribute__((vector_size(4 * kLanes)));
using Dwords = uint32_t __attribute__((vector_size(4 * kLanes)));

template <typename To, typename From>
[[gnu::always_inline]] inline To bits_of(From value) {
  return __builtin_bit_cast(To, value);
}

template <typename Vector = Lanes, typename Element = float>
[[gnu::always_inline]] inline Vector load(const Element* x) {
  Vector value;
  __builtin_memcpy(&value, x, sizeof value);
  return value;
}
template <typename Vector, typename Element>
[[gnu::always_inline]] inline void save(Element* x, Vector value) {
  __builtin_memcpy(x, &value, sizeof value);
}

[[gnu::always_inline]] inline uint16_t bf16_of_float(float value) {
  const auto bits = bits_of<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffffU) > 0x7f800000U ? (bits >> 16) | 0x40U : rounded);
}

[[gnu::always_inline]] inline Lanes load_bf16(const uint16_t* x) {
#if defined(__AVX512F__)
  return bits_of<Lanes>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load<__m256i>(x)), 16));
#else
  using Halves = uint16_t __attribute__((vector_size(2 * kLanes)));
  return bits_of<Lanes>(__builtin_convertvector(load<Halves>(x), Dwords) << 16);
#endif
}

#if defined(__AVX512BF16__)
[[gnu::always_inline]] inline void save_bf16(uint16_t* y, Lanes value) { save(y, _mm512_cvtneps_pbh(value)); }
[[gnu::always_inline]] inline void save_two_bf16(uint16_t* y, Lanes first, Lanes second) {
  save(y, _mm512_cvtne2ps_pbh(second, first));
}
#else
[[gnu::always_inline]] inline void save_bf16(uint16_t* y, Lanes value) {
  for (int64_t r = 0; r < kLanes; ++r) y[r] = bf16_of_float(value[r]);
}
[[gnu::always_inline]] inline void save_two_bf16(uint16_t* y, Lanes first, Lanes second) {
  save_bf16(y, first);
  save_bf16(y + kLanes, second);
}
#endif

}  // namespace
}  // namespace GPTQ_ISA
}  // namespace gptq
