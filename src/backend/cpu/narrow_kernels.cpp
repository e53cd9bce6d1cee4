// Products of a few rows, compiled once per instruction set.
// With codes a lane is an output: its word is loaded once, each code in it becomes a float in a register, and a row of
// x broadcasts its element. The sums of a few hundred outputs stay in L1 while the words stream by in the order of
// memory. Limited by memory, or by three instructions a code; dot products of bf16 take half as many. Other weights are
// multiplied along their rows: limited by memory.
#include "backend/cpu/narrow_kernels.h"

#include <algorithm>

#include "backend/cpu/lanes.h"

namespace gptq {
namespace GPTQ_ISA {
namespace {

// The fewest codes that fill whole words.
template <int kBits>
struct Unit {
  static constexpr int kWords = kBits == 3 ? 3 : 1, kCodes = 32 * kWords / kBits;
};

#if defined(__AVX512F__)
// The low bits of each lane as a float: a table of 16, which repeats where codes have fewer bits.
template <int kBits>
[[gnu::always_inline]] inline Lanes code_of(Dwords bits) {
  if constexpr (kBits <= 4) {
    constexpr int kMask = (1 << kBits) - 1;
    Lanes table;
    for (int i = 0; i < 16; ++i) table[i] = static_cast<float>(i & kMask);
    return bits_of<Lanes>(_mm512_permutexvar_ps(bits_of<__m512i>(bits), bits_of<__m512>(table)));
  } else {
    return __builtin_convertvector(bits_of<IntLanes>(bits & ((1U << kBits) - 1)), Lanes);
  }
}
#else
template <int kBits>
[[gnu::always_inline]] inline Lanes code_of(Dwords bits) {
  return __builtin_convertvector(bits_of<IntLanes>(bits & ((1U << kBits) - 1)), Lanes);
}
#endif

// One unit of kLanes outputs.
template <int kBits, int kRows>
[[gnu::always_inline]] inline void add_unit(const Dwords* words, FloatRows x, Lanes* sums) {
#pragma GCC unroll 32
  for (int code = 0; code < Unit<kBits>::kCodes; ++code) {
    const int word = code * kBits / 32, shift = code * kBits % 32;
    Dwords bits = words[word] >> shift;
    if (shift + kBits > 32) bits |= words[word + 1] << (32 - shift);
    const Lanes value = code_of<kBits>(bits);
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) sums[row] += value * x.data[row * x.stride + code];
  }
}

template <typename Vector, typename Element>
[[gnu::always_inline]] inline Vector load_first(const Element* x, int64_t count) {
  Vector value{};
  __builtin_memcpy(&value, x, static_cast<size_t>(count) * sizeof *x);
  return value;
}

template <int kBits, int kRows>
void add_codes_of(const CodeColumns& codes, int64_t inputs, FloatRows x, float* to, int64_t stride) {
  constexpr int kWords = Unit<kBits>::kWords, kCodes = Unit<kBits>::kCodes, kAhead = 8;  // rows to prefetch
  const int64_t whole = codes.count / kLanes * kLanes, rest = codes.count - whole;
  const uint32_t* from = codes.words;
  for (int64_t k = 0; k < inputs; k += kCodes, from += kWords * codes.stride, x.data += kCodes) {
    Dwords words[kWords];
    Lanes sums[kRows];
    for (int64_t c = 0; c < whole; c += kLanes) {
      for (int word = 0; word < kWords; ++word) {
        words[word] = load<Dwords>(from + word * codes.stride + c);
        __builtin_prefetch(from + (word + kAhead) * codes.stride + c);
      }
      for (int row = 0; row < kRows; ++row) sums[row] = load(to + row * stride + c);
      add_unit<kBits, kRows>(words, x, sums);
      for (int row = 0; row < kRows; ++row) save(to + row * stride + c, sums[row]);
    }
    if (rest == 0) continue;
    for (int word = 0; word < kWords; ++word)
      words[word] = load_first<Dwords>(from + word * codes.stride + whole, rest);
    for (int row = 0; row < kRows; ++row) sums[row] = load_first<Lanes>(to + row * stride + whole, rest);
    add_unit<kBits, kRows>(words, x, sums);
    for (int row = 0; row < kRows; ++row)
      __builtin_memcpy(to + row * stride + whole, &sums[row], static_cast<size_t>(rest) * sizeof *to);
  }
}

using AddCodes = void (*)(const CodeColumns&, int64_t, FloatRows, float*, int64_t);

template <int kBits>
AddCodes for_rows(int64_t rows) {
  static_assert(NarrowKernels::kMostRows == 4);
  constexpr AddCodes kFunctions[] = {add_codes_of<kBits, 1>, add_codes_of<kBits, 2>, add_codes_of<kBits, 3>,
                                     add_codes_of<kBits, 4>};
  return kFunctions[rows - 1];
}

void add_codes(const CodeColumns& codes, int64_t inputs, FloatRows x, int64_t rows, float* sums, int64_t stride) {
  const AddCodes function = codes.bits == 2   ? for_rows<2>(rows)
                            : codes.bits == 3 ? for_rows<3>(rows)
                            : codes.bits == 4 ? for_rows<4>(rows)
                                              : for_rows<8>(rows);
  function(codes, inputs, x, sums, stride);
}

#if defined(__AVX512BF16__)
// Two codes of each lane at a time, from the halves of its word.
template <int kBits, int kRows>
void add_pairs_of(const CodeColumns& codes, int64_t inputs, const uint32_t* x, int64_t x_stride, float* to,
                  int64_t stride) {
  constexpr int kHalf = 16 / kBits, kMask = (1 << kBits) - 1, kAhead = 8;
  constexpr uint16_t kIntegers[] = {0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0,
                                    0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};  // in bf16
  alignas(64) uint16_t repeated[32];
  for (int i = 0; i < 32; ++i) repeated[i] = kIntegers[i & kMask];
  const auto table = load<__m512i>(repeated);
  for (int64_t k = 0; k < inputs; k += 2 * kHalf, x += kHalf) {
    const uint32_t* const from = codes.words + k * kBits / 32 * codes.stride;
    for (int64_t c = 0; c < codes.count; c += kLanes) {
      const auto lanes = static_cast<__mmask16>((1U << std::min<int64_t>(codes.count - c, kLanes)) - 1);
      const __m512i words = _mm512_maskz_loadu_epi32(lanes, from + c);
      __builtin_prefetch(from + kAhead * codes.stride + c);
      __m512 sums[kRows];
      for (int row = 0; row < kRows; ++row) sums[row] = load<__m512>(to + row * stride + c);
#pragma GCC unroll 8
      for (int j = 0; j < kHalf; ++j) {
        const __m512i pairs = _mm512_permutexvar_epi16(_mm512_srli_epi16(words, j * kBits), table);
        for (int row = 0; row < kRows; ++row) {
          sums[row] = _mm512_dpbf16_ps(sums[row], bits_of<__m512bh>(pairs),
                                       bits_of<__m512bh>(_mm512_set1_epi32(static_cast<int>(x[row * x_stride + j]))));
        }
      }
      for (int row = 0; row < kRows; ++row) save(to + row * stride + c, sums[row]);
    }
  }
}

template <int kBits>
auto pairs_for_rows(int64_t rows) {
  constexpr decltype(&add_pairs_of<kBits, 1>) kFunctions[] = {add_pairs_of<kBits, 1>, add_pairs_of<kBits, 2>,
                                                              add_pairs_of<kBits, 3>, add_pairs_of<kBits, 4>};
  return kFunctions[rows - 1];
}

void add_codes_bf16(const CodeColumns& codes, int64_t inputs, const uint32_t* x, int64_t stride, int64_t rows,
                    float* sums, int64_t sum_stride) {
  const auto function = codes.bits == 2 ? pairs_for_rows<2>(rows) : pairs_for_rows<4>(rows);
  function(codes, inputs, x, stride, sums, sum_stride);
}
#else
constexpr decltype(NarrowKernels::add_codes_bf16) add_codes_bf16 = nullptr;
#endif

void add_group(const float* sums, const float* scales, const uint8_t* zeros, float total, int64_t n, float* y) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += scales[i] * (sums[i] - static_cast<float>(zeros[i]) * total);
}

[[gnu::always_inline]] inline Lanes load_weights(const float* w) { return load(w); }
[[gnu::always_inline]] inline Lanes load_weights(const uint16_t* w) { return load_bf16(w); }
float widened(float w) { return w; }
float widened(uint16_t w) { return bits_of<float>(static_cast<uint32_t>(w) << 16); }

template <typename Element>
float product(const float* x, const Element* w, int64_t n) {
  constexpr int64_t kSums = 4;  // enough to hide the latency of an addition
  Lanes sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums * kLanes <= n; i += kSums * kLanes) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kSums; ++j) sums[j] += load(x + i + j * kLanes) * load_weights(w + i + j * kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) sums[0] += load(x + i) * load_weights(w + i);
  const Lanes all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  float sum = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += all[lane];
  for (; i < n; ++i) sum += x[i] * widened(w[i]);
  return sum;
}

}  // namespace

extern const NarrowKernels kNarrowKernels;
const NarrowKernels kNarrowKernels = {.add_codes = add_codes,
                                      .add_codes_bf16 = add_codes_bf16,
                                      .add_group = add_group,
                                      .product = product<float>,
                                      .product_bf16 = product<uint16_t>};

}  // namespace GPTQ_ISA
}  // namespace gptq
