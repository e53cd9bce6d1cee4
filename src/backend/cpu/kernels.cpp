// Compiled once per instruction set, each copy in a namespace named by the macro GPTQ_ISA. Includes no header but
// lanes.h that defines functions: the linker would merge their copies, and might keep one that this processor cannot
// run.
// Loops are plain; `omp simd` lets the compiler reorder only the sums named in its clause.
#include "backend/cpu/kernels.h"

#include "backend/cpu/lanes.h"

namespace gptq {
namespace GPTQ_ISA {
namespace {

[[gnu::always_inline]] inline float smaller(float a, float b) { return b < a ? b : a; }
[[gnu::always_inline]] inline float larger(float a, float b) { return a < b ? b : a; }
[[gnu::always_inline]] inline int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }
[[gnu::always_inline]] inline Lanes smaller(Lanes a, Lanes b) { return b < a ? b : a; }
[[gnu::always_inline]] inline Lanes larger(Lanes a, Lanes b) { return a < b ? b : a; }
[[gnu::always_inline]] inline Lanes broadcast(float value) { return Lanes{} + value; }

// x + kMagic has no fraction bits: for |x| <= 2^22 its low bits are the integer nearest to x, ties to even.
constexpr float kMagic = 0x1.8p23F;
template <typename Float>
[[gnu::always_inline]] inline Float nearest(Float x) {
  return (x + kMagic) - kMagic;
}

// exp(r) for r = x - k ln(2), |r| <= ln(2) / 2: 8 terms of the Taylor series (the ninth is below 6e-9).
template <typename Float>
[[gnu::always_inline]] inline Float exponential_remainder(Float x, Float k) {
  const Float r = (x - k * 0.693359375F) - k * -2.12194440e-4F;  // ln(2) split, the first part has 9 bits
  Float series = r * (1.0F / 5040) + 1.0F / 720;
  series = series * r + 1.0F / 120;
  series = series * r + 1.0F / 24;
  series = series * r + 1.0F / 6;
  series = series * r + 0.5F;
  return series * r * r + r + 1.0F;
}

// exp(x) to about 1 ulp. Flushes results below 2^-126 to 0, overflows to infinity.
[[gnu::always_inline]] inline float exponential(float x) {
  const float inside = larger(smaller(x, 88.8F), -87.4F);
  const float k = nearest(inside * 1.442695041F);
  const float series = exponential_remainder(inside, k);
  // Two factors, as 2^128 is not a float.
  const auto half = static_cast<int32_t>(k) >> 1;
  const auto first = bits_of<float>((half + 127) << 23);
  const auto second = bits_of<float>((static_cast<int32_t>(k) - half + 127) << 23);
  return x < -87.33F ? 0.0F : series * first * second;
}

// exp(x) for x <= 88, where a single power of two suffices.
[[gnu::always_inline]] inline Lanes exponential_below(Lanes x) {
  const Lanes inside = larger(x, broadcast(-87.33F)), shifted = inside * 1.442695041F + kMagic;
  const auto power = bits_of<Lanes>((bits_of<IntLanes>(shifted) << 23) + (127 << 23));
  return x < -87.33F ? broadcast(0.0F) : exponential_remainder(inside, shifted - kMagic) * power;
}

// Phi(x) = P(normal <= x) to 3e-7 relative for x <= 0. With z = |x| / sqrt(2) and t = 1 / (1 + 0.4 z),
// erfc(z) / 2 = exp(-z^2) t P(t); P is the minimax polynomial of degree 8 on 0 <= z <= 10.
[[gnu::always_inline]] inline float normal_cdf(float x) {
  const float z = (x < 0 ? -x : x) * 0.70710678F;
  const float t = 1.0F / (1.0F + 0.4F * z);
  float p = 0.020626575F;
  p = p * t - 0.070160024F;
  p = p * t + 0.041994780F;
  p = p * t + 0.043980554F;
  p = p * t + 0.039879568F;
  p = p * t + 0.096695960F;
  p = p * t + 0.100943983F;
  p = p * t + 0.113221526F;
  p = p * t + 0.112817116F;
  const float tail = exponential(-z * z) * t * p;
  return x < 0 ? tail : 1.0F - tail;
}

// tanh(x) to about 2 ulp. Below 0.7 the fifth convergent of Lambert's continued fraction x / (1 + x^2 / (3 + ...)),
// whose error is at most 3e-9; above, where nothing cancels, 1 - 2 / (1 + exp(2 x)).
[[gnu::always_inline]] inline float hyperbolic_tangent(float x) {
  const float magnitude = x < 0 ? -x : x, square = x * x;
  const float small = x * (945.0F + square * (105.0F + square)) / (945.0F + square * (420.0F + square * 15.0F));
  const float large = 1.0F - 2.0F / (1.0F + exponential(2 * magnitude));
  return magnitude < 0.7F ? small : x < 0 ? -large : large;
}

// log2(x) for positive normal x = 2^k m with m in [sqrt(1/2), sqrt(2)), ln(m) = 2 atanh((m - 1) / (m + 1)).
[[gnu::always_inline]] inline Lanes log2(Lanes x) {
  const auto bits = bits_of<IntLanes>(x);
  const IntLanes k = (bits - 0x3f3504f3) >> 23;
  const auto m = bits_of<Lanes>(bits - (k << 23));
  const Lanes s = (m - 1.0F) / (m + 1.0F), s2 = s * s;
  Lanes series = 1.0F / 9 + s2 * (1.0F / 11);
  series = series * s2 + 1.0F / 7;
  series = series * s2 + 1.0F / 5;
  series = series * s2 + 1.0F / 3;
  series = series * s2 + 1.0F;
  return __builtin_convertvector(k, Lanes) + series * s * (2 * 1.442695041F);
}

// 2^x for x < 127; flushes results below 2^-126 to 0.
[[gnu::always_inline]] inline Lanes exp2(Lanes x) {
  const Lanes inside = larger(x, broadcast(-126.0F));
  const Lanes k = nearest(inside), r = (inside - k) * 0.693147181F;
  Lanes series = r * (1.0F / 5040) + 1.0F / 720;
  series = series * r + 1.0F / 120;
  series = series * r + 1.0F / 24;
  series = series * r + 1.0F / 6;
  series = series * r + 0.5F;
  series = series * r * r + r + 1.0F;
  const auto power = bits_of<Lanes>((__builtin_convertvector(k, IntLanes) + 127) << 23);
  return x < -126.0F ? broadcast(0.0F) : series * power;
}

[[gnu::always_inline]] inline float float_of_half(uint16_t half) {
  const auto magnitude = static_cast<uint32_t>(half & 0x7fffU) << 13;
  // Multiplying by 2^112 changes the exponent's bias from 15 to 127 and normalizes subnormals, exactly.
  const auto finite = bits_of<uint32_t>(bits_of<float>(magnitude) * 0x1p112F);
  const uint32_t positive = magnitude >= 0x0f800000U ? magnitude | 0x7f800000U : finite;
  return bits_of<float>(positive | static_cast<uint32_t>(half & 0x8000U) << 16);
}

// As Half(float) in tensor/dtype.h, without branches.
[[gnu::always_inline]] inline uint16_t half_of_float(float value) {
  const auto bits = bits_of<uint32_t>(value);
  const uint32_t magnitude = bits & 0x7fffffffU;
  const uint32_t small = bits_of<uint32_t>(bits_of<float>(magnitude) + 0.5F) - 0x3f000000U;
  const uint32_t normal = (magnitude + 0xfffU + ((magnitude >> 13) & 1U) - 0x38000000U) >> 13;
  const uint32_t special = magnitude > 0x7f800000U ? 0x7e00U : 0x7c00U;
  const uint32_t finite = magnitude < 0x38800000U ? small : normal;
  return static_cast<uint16_t>(((bits >> 16) & 0x8000U) | (magnitude >= 0x47800000U ? special : finite));
}

// Conversions for code that serves f32 and bf16.
[[gnu::always_inline]] inline float wide(float x) { return x; }
[[gnu::always_inline]] inline float wide(uint16_t x) { return bits_of<float>(static_cast<uint32_t>(x) << 16); }
template <typename Element>
[[gnu::always_inline]] inline Element rounded_to(float x) {
  if constexpr (sizeof(Element) == sizeof(float))
    return x;
  else
    return bf16_of_float(x);
}

void f16_to_f32(const uint16_t* x, float* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = float_of_half(x[i]);
}

void bf16_to_f32(const uint16_t* x, float* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = bits_of<float>(static_cast<uint32_t>(x[i]) << 16);
}

void f32_to_f16(const float* x, uint16_t* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = half_of_float(x[i]);
}

void f32_to_bf16(const float* x, uint16_t* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = bf16_of_float(x[i]);
}

template <typename Element>
void add(const Element* x, float factor, float* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += factor * wide(x[i]);
}

void add_products(const float* x, const float* w, float* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += x[i] * w[i];
}

void scale(const float* x, float factor, float* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * factor;
}

template <typename Element>
void scale_by(const float* x, const float* weight, float factor, Element* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = rounded_to<Element>(x[i] * factor * weight[i]);
}

void add_line(float* x, float start, float slope, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] += slope * (start + static_cast<float>(static_cast<int32_t>(i)));
}

// Subtracts the mean, then the mean of the result, which corrects the rounding of the first.
void centre(const float* x, float* y, int64_t n) {
  float sum = 0, left = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  const float mean = sum / static_cast<float>(n);
#pragma omp simd reduction(+ : left)
  for (int64_t i = 0; i < n; ++i) {
    const float value = x[i] - mean;
    y[i] = value;
    left += value;
  }
  const float correction = left / static_cast<float>(n);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] -= correction;
}

float sum_of_squares(const float* x, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum;
}

float product(const float* x, const float* y, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

bool all_finite(const float* x, int64_t n) {
  uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t magnitude = bits_of<uint32_t>(x[i]) & 0x7fffffffU;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest < 0x7f800000U;
}

bool all_finite_16(const uint16_t* x, int64_t n, uint16_t exponent) {
  uint16_t largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = static_cast<uint16_t>(x[i] & exponent);
    largest = bits > largest ? bits : largest;
  }
  return largest < exponent;
}

template <typename Element>
void rotate(const float* cos, const float* sin, Element* low, Element* high, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float a = wide(low[i]), b = wide(high[i]);
    low[i] = rounded_to<Element>(a * cos[i] - b * sin[i]);
    high[i] = rounded_to<Element>(b * cos[i] + a * sin[i]);
  }
}

void rotate_pairs(const float* cos, const float* sin, float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cos[i] - b * sin[i];
    x[2 * i + 1] = b * cos[i] + a * sin[i];
  }
}

// 2^x for x <= 0 with a relative error of 3e-6; flushes results below 2^-126 to 0. Splits x into the nearest integer
// and a remainder in [-1/2, 1/2], for which it evaluates the minimax polynomial of degree 4. Without AVX-512 kMagic
// finds the integer.
[[gnu::always_inline]] inline Lanes quick_exp2(Lanes x) {
#if defined(__AMX_BF16__)
  const Lanes r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), whole = x - r;
#elif defined(__AVX512F__)
  const Lanes whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const Lanes r = x - whole;
#else
  const Lanes inside = larger(x, broadcast(-126.0F)), shifted = inside + kMagic, r = inside - (shifted - kMagic);
#endif
  Lanes series = r * 0.00958285F + 0.05590643F;
  series = series * r + 0.24024099F;
  series = series * r + 0.69312419F;
  series = series * r + 1.0F;
#if defined(__AMX_BF16__)
  return _mm512_scalef_ps(series,
                          whole);  // between configure_tiles() and release_tiles(), results below 2^-126 are flushed
#elif defined(__AVX512F__)
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, broadcast(-126.0F), _CMP_NLT_UQ), series, whole);
#else
  const auto power = bits_of<Lanes>(bits_of<IntLanes>(series) + (bits_of<IntLanes>(shifted) << 23));
  return x < -126.0F ? broadcast(0.0F) : power;
#endif
}

// gate(x, up) = activation(x) * up.
struct Silu {
  [[gnu::always_inline]] static inline float gate(float x, float up) { return x / (1.0F + exponential(-x)) * up; }
};
struct Gelu {
  [[gnu::always_inline]] static inline float gate(float x, float up) { return x * normal_cdf(x) * up; }
};
// (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u)), with u = sqrt(2 / pi) (x + 0.044715 x^3)
struct GeluTanh {
  [[gnu::always_inline]] static inline float gate(float x, float up) {
    const float u = 0.797884561F * (x + 0.044715F * x * x * x);
    return x / (1.0F + exponential(-2 * u)) * up;
  }
};
struct Relu {
  [[gnu::always_inline]] static inline float gate(float x, float up) { return larger(x, 0.0F) * up; }
};
struct ReluSquared {
  [[gnu::always_inline]] static inline float gate(float x, float up) {
    const float positive = larger(x, 0.0F);
    return positive * positive * up;
  }
};
struct ClampedSwiglu {
  [[gnu::always_inline]] static inline float gate(float x, float up) {
    const float g = -larger(-x, -7.0F), u = larger(-larger(-up, -7.0F), -7.0F);
    return g / (1.0F + exponential(-1.702F * g)) * (u + 1.0F);
  }
};
struct Identity {
  [[gnu::always_inline]] static inline float gate(float x, float up) { return x * up; }
};

struct QuickGelu {
  [[gnu::always_inline]] static inline float gate(float x, float up) {
    return x / (1.0F + exponential(-1.702F * x)) * up;
  }
};
struct Sigmoid {
  [[gnu::always_inline]] static inline float gate(float x, float up) { return up / (1.0F + exponential(-x)); }
};
struct Softplus {
  [[gnu::always_inline]] static inline float gate(float x, float up) {
    return (larger(x, 0.0F) + __builtin_log1pf(exponential(-larger(x, -x)))) * up;
  }
};

template <typename Activation, typename Element>
void gate(const Element* x, const Element* up, Element* y, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] = rounded_to<Element>(Activation::gate(wide(x[i]), wide(up[i])));
}

// 1 / x; on AMX processors, where division is slow, with a relative error of about 2^-23.
[[gnu::always_inline]] inline Lanes reciprocal(Lanes x) {
#if defined(__AMX_BF16__)
  const Lanes guess = _mm512_rcp14_ps(x);
  return guess * (2.0F - x * guess);
#else
  return 1.0F / x;
#endif
}

// Uses attention's fast exponential, as the result is rounded to bf16. With e = exp(-|x|): x / (1 + e) for x >= 0,
// x e / (1 + e) below.
void silu_bf16(const uint16_t* x, const uint16_t* up, uint16_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Lanes value = load_bf16(x + i), magnitude = larger(value, -value);
    const Lanes e = quick_exp2(magnitude * -1.442695041F);
    save_bf16(y + i, value * (value < 0.0F ? e : broadcast(1.0F)) * reciprocal(1.0F + e) * load_bf16(up + i));
  }
  gate<Silu>(x + i, up + i, y + i, n - i);
}

template <typename Element>
constexpr GateKernels<Element> kGates = {.silu = gate<Silu, Element>,
                                         .gelu = gate<Gelu, Element>,
                                         .gelu_tanh = gate<GeluTanh, Element>,
                                         .relu = gate<Relu, Element>,
                                         .relu_squared = gate<ReluSquared, Element>,
                                         .clamped_swiglu = gate<ClampedSwiglu, Element>,
                                         .quick_gelu = gate<QuickGelu, Element>,
                                         .sigmoid = gate<Sigmoid, Element>,
                                         .softplus = gate<Softplus, Element>,
                                         .identity = gate<Identity, Element>};
constexpr GateKernels<uint16_t> kGatesBf16 = [] {
  GateKernels<uint16_t> gates = kGates<uint16_t>;
  gates.silu = silu_bf16;
  return gates;
}();

// Passes NaN through.
// log(1 + e) = log(u) e / (u - 1), where u is 1 + e as rounded (Kahan).
void softplus(float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const Lanes value = load(x + i), e = exponential_below(smaller(value, broadcast(20.0F))), u = 1.0F + e;
    const Lanes logarithm = log2(u) * 0.693147181F * (e / (u - 1.0F));
    save(x + i, value > 20.0F ? value : u == 1.0F ? e : logarithm);
  }
}

void scan(const ScanStates& states, const ScanToken& token, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const Lanes step = load(token.steps + i), x = load(token.x + i), added = step * x;
    Lanes sum = load(token.skip + i) * x;
    for (int64_t row = 0; row < states.state; ++row) {
      float* const place = states.states + row * states.stride + i;
      const Lanes decay = exponential_below(load(states.rates + row * states.stride + i) * step);
      const Lanes state = decay * load(place) + token.b[row] * added;
      save(place, state);
      sum += token.c[row] * state;
    }
    save(y + i, sum);
  }
}

void hard_cap(float bound, float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float low = x[i] < -bound ? -bound : x[i];
    x[i] = low > bound ? bound : low;
  }
}

void soft_cap(float bound, float* x, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) x[i] = bound * hyperbolic_tangent(x[i] / bound);
}

// Combines all lanes of x, one half with the other first.
template <int64_t kHalf = kLanes / 2, typename Combine>
[[gnu::always_inline]] inline float folded(Lanes x, const Combine& combine) {
  if constexpr (kHalf == 0) {
    return x[0];
  } else {
    IntLanes other{};
#pragma GCC unroll 16
    for (int64_t r = 0; r < kLanes; ++r) other[r] = static_cast<int32_t>(r ^ kHalf);
    return folded<kHalf / 2>(combine(x, __builtin_shuffle(x, other)), combine);
  }
}

float maximum(const float* x, int64_t n) {
  if (n < kLanes) {
    float top = x[0];
    for (int64_t i = 1; i < n; ++i) top = larger(top, x[i]);
    return top;
  }
  // Independent maxima hide the latency. The last vectors, which may overlap others, are taken first.
  constexpr int64_t kTops = 4;
  Lanes tops[kTops];
  for (int64_t t = 0; t < kTops; ++t) tops[t] = load(x + larger(n - (t + 1) * kLanes, int64_t{0}));
  for (int64_t i = 0; i + kTops * kLanes <= n; i += kTops * kLanes) {
    for (int64_t t = 0; t < kTops; ++t) tops[t] = larger(tops[t], load(x + i + t * kLanes));
  }
  return folded(larger(larger(tops[0], tops[1]), larger(tops[2], tops[3])),
                [](Lanes a, Lanes b) { return larger(a, b); });
}

// Rescales a row to a higher top.
[[gnu::always_inline]] inline void fade(RunningSoftmax& row, float top, float factor) {
  row.top = top;
  row.weight *= factor;
  for (int64_t i = 0; i < row.width; i += kLanes) save(row.sums + i, load(row.sums + i) * factor);
}

[[gnu::always_inline]] inline float sum_of(Lanes x) {
  return folded(x, [](Lanes a, Lanes b) { return a + b; });
}

void soften(float* x, int64_t n, float factor, RunningSoftmax& row) {
  const float top = larger(row.top, factor * maximum(x, n));
  if (top != row.top) fade(row, top, exponential(row.top - top));
  Lanes sums{};
  for (int64_t i = 0; i < n; i += kLanes) {
    const Lanes value = exponential_below(load(x + i) * factor - top);
    save(x + i, value);
    sums += value;
  }
  row.weight += sum_of(sums);
}

void soften_bf16(float* x, int64_t n, float factor, RunningSoftmax& row) {
  constexpr float kLog2E = 1.442695041F;
  const float top = larger(row.top, factor * maximum(x, n));
  if (top != row.top) fade(row, top, quick_exp2(broadcast((row.top - top) * kLog2E))[0]);
  const float slope = factor * kLog2E, offset = top * kLog2E;
  auto* rounded = reinterpret_cast<uint16_t*>(x);
  Lanes sums{}, others{};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Lanes first = quick_exp2(load(x + i) * slope - offset),
                second = quick_exp2(load(x + i + kLanes) * slope - offset);
    save_two_bf16(rounded + i, first, second);
    sums += first;
    others += second;
  }
  for (; i < n; i += kLanes) {
    const Lanes value = quick_exp2(load(x + i) * slope - offset);
    save_bf16(rounded + i, value);
    sums += value;
  }
  row.weight += sum_of(sums + others);
}

// Terms that are summed in f32; sums of such chunks are added in double.
constexpr int64_t kChunk = 1024;

double sum_of_exponentials(const float* x, float top, int64_t n) {
  double total = 0;
  for (int64_t start = 0; start < n; start += kChunk) {
    const int64_t end = start + kChunk < n ? start + kChunk : n;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = start; i < end; ++i) sum += exponential(x[i] - top);
    total += static_cast<double>(sum);
  }
  return total;
}

double divergence(const float* p, float log_p, const float* q, float log_q, int64_t n) {
  double total = 0;
  for (int64_t start = 0; start < n; start += kChunk) {
    const int64_t end = start + kChunk < n ? start + kChunk : n;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = start; i < end; ++i) {
      const float a = p[i] - log_p, b = q[i] - log_q;
      sum += exponential(a) * (a - b);
    }
    total += static_cast<double>(sum);
  }
  return total;
}

// y[k] = column k of x: lane r is row r. Missing rows repeat the last one and are never written back.
void transpose_in(FloatRows x, int64_t rows, int64_t cols, float* y) {
  for (int64_t r = 0; r < kLanes; ++r) {
    const float* row = x.data + (r < rows ? r : rows - 1) * x.stride;
    for (int64_t k = 0; k < cols; ++k) y[k * kLanes + r] = row[k];
  }
}

// sum_k importance_k |scale q_k - w_k|^norm with q_k = clamp(round(w_k / scale), low, high), lane by lane. At a
// tie, multiplying by 1 / scale may choose the other code, which has the same error.
template <bool kSquare>
[[gnu::always_inline]] inline Lanes grid_error(const float* w, const float* importance, int64_t n, Lanes scale,
                                               Lanes low, Lanes high, float norm) {
  const Lanes inverse = 1.0F / scale;
  Lanes sum{};
  for (int64_t k = 0; k < n; ++k) {
    const Lanes value = load(w + k * kLanes);
    const Lanes q = nearest(smaller(larger(value * inverse, low), high));
    const Lanes error = scale * q - value;
    if constexpr (kSquare) {
      sum += importance[k] * error * error;
    } else {
      const Lanes magnitude = larger(error, -error);
      const Lanes power = exp2(norm * log2(larger(magnitude, broadcast(0x1p-126F))));
      sum += importance[k] * power;
    }
  }
  return sum;
}

// A scale rounded to fp16, neither zero nor infinite.
[[gnu::always_inline]] inline Lanes stored_scale(Lanes scale) {
  Lanes half{};
  for (int64_t r = 0; r < kLanes; ++r) half[r] = float_of_half(half_of_float(scale[r]));
  const Lanes magnitude = smaller(larger(larger(half, -half), broadcast(0x1p-24F)), broadcast(65504.0F));
  return scale < 0.0F ? -magnitude : magnitude;
}

// The best grid found so far, for each lane.
struct BestGrid {
  Lanes scale{}, zero{}, least = broadcast(__builtin_inff());

  [[gnu::always_inline]] void attempt(const float* w, const float* importance, int64_t n, Lanes new_scale,
                                      Lanes new_zero, const GridRules& rules) {
    const Lanes low = -new_zero, high = static_cast<float>((1 << rules.bits) - 1) - new_zero;
    const Lanes error = rules.norm == 2.0F ? grid_error<true>(w, importance, n, new_scale, low, high, 2)
                                           : grid_error<false>(w, importance, n, new_scale, low, high, rules.norm);
    const IntLanes better = error < least;
    least = better ? error : least;
    scale = better ? new_scale : scale;
    zero = better ? new_zero : zero;
  }
};

void find_grid(int64_t rows, FloatRows w, const float* importance, int64_t group_size, const GridRules& rules,
               float* scales, int64_t scale_stride, uint8_t* zeros, int64_t zero_stride, float* scratch) {
  transpose_in(w, rows, group_size, scratch);
  const Lanes top = broadcast(static_cast<float>((1 << rules.bits) - 1)), middle = (top + 1) / 2;
  Lanes lo{}, hi{};
  for (int64_t k = 0; k < group_size; ++k) {
    lo = smaller(lo, load(scratch + k * kLanes));
    hi = larger(hi, load(scratch + k * kLanes));
  }
  const IntLanes nothing = (lo == 0.0F) & (hi == 0.0F);
  lo = nothing ? broadcast(-1.0F) : lo;
  hi = nothing ? broadcast(1.0F) : hi;
  const bool has_sign = rules.symmetric && rules.signed_scales;
  const Lanes widest = has_sign ? (-lo >= hi ? -lo : -hi) : rules.symmetric ? 2 * larger(-lo, hi) : hi - lo;
  const Lanes steps = has_sign ? middle : top;
  BestGrid best;
  best.scale = stored_scale(widest / steps);
  best.zero = rules.symmetric ? middle : nearest(smaller(-lo / best.scale, top));
  for (int i = 0; i < rules.candidates; ++i) {
    const float p = 1.0F - static_cast<float>(i) * rules.shrink_step;
    const Lanes scale = stored_scale(widest * p / steps);
    const auto attempt = [&](Lanes a_scale, Lanes a_zero) {
      best.attempt(scratch, importance, group_size, a_scale, a_zero, rules);
    };
    if (rules.symmetric) {
      attempt(scale, middle);
      if (has_sign && rules.candidates > 1) attempt(stored_scale(widest * (-1.05F * p) / steps), middle);
      continue;
    }
    const Lanes zero = nearest(-lo * p / scale);
    attempt(scale, smaller(zero, top));
    if (!rules.search_zeros) continue;
    attempt(scale, larger(smaller(zero - 1, top), Lanes{}));
    attempt(scale, smaller(zero + 1, top));
  }
  for (int64_t r = 0; r < rows; ++r) scales[r * scale_stride] = best.scale[r];
  for (int64_t r = 0; r < rows; ++r) zeros[r * zero_stride] = static_cast<uint8_t>(best.zero[r]);
}

// Columns per pass: their errors stay in registers until one pass adds them to all later columns.
constexpr int64_t kPass = 8;

// Lanes are rows. scratch holds w, overwritten by the codes, and the feedback, overwritten by the errors.
void quantize_columns(int64_t rows, int64_t n, FloatRows w, FloatRows feedback, FloatRows factor, GridRows grid,
                      uint8_t* codes, int64_t code_stride, float* errors, int64_t error_stride, float* loss,
                      int64_t loss_stride, float* scratch) {
  float *values = scratch, *sums = scratch + n * kLanes;
  transpose_in(w, rows, n, values);
  transpose_in(feedback, rows, n, sums);
  const auto top = static_cast<float>((1 << grid.bits) - 1);
  Lanes total{}, scale{}, zero{};
  int32_t group = -1;
  for (int64_t start = 0; start < n; start += kPass) {
    const int64_t end = start + kPass < n ? start + kPass : n;
    Lanes pass[kPass] = {};
    for (int64_t k = start; k < end; ++k) {
      if (grid.groups[k] != group) {
        group = grid.groups[k];
        for (int64_t r = 0; r < kLanes; ++r) {
          const int64_t row = r < rows ? r : rows - 1;
          scale[r] = grid.scales[row * grid.scale_stride + group];
          zero[r] = grid.zeros[row * grid.zero_stride + group];
        }
      }
      const float* f = factor.data + k * factor.stride;
      Lanes sum = load(sums + k * kLanes);
      for (int64_t j = start; j < k; ++j) sum += pass[j - start] * f[j];
      const Lanes weight = load(values + k * kLanes);
      const Lanes target = weight + sum / f[k];
      const Lanes q = nearest(smaller(larger(target / scale, -zero), top - zero));
      const Lanes miss = (target - scale * q) * f[k];
      total += miss * miss;
      const Lanes error = weight - scale * q;
      pass[k - start] = error;
      save(values + k * kLanes, q + zero);
      save(sums + k * kLanes, error);
    }
    for (int64_t k = end; k < n; ++k) {
      const float* f = factor.data + k * factor.stride + start;
      Lanes sum = load(sums + k * kLanes);
      for (int64_t j = 0; j < kPass; ++j) sum += pass[j] * f[j];
      save(sums + k * kLanes, sum);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    uint8_t* code_row = codes + r * code_stride;
    float* error_row = errors + r * error_stride;
    for (int64_t k = 0; k < n; ++k) {
      code_row[k] = static_cast<uint8_t>(static_cast<int32_t>(values[k * kLanes + r]));
      error_row[k] = sums[k * kLanes + r];
    }
    loss[r * loss_stride] += total[r];
  }
}

void round_columns(int64_t n, const float* w, const float* scales, const uint8_t* zeros, const int32_t* groups,
                   int bits, uint8_t* codes) {
  const auto top = static_cast<float>((1 << bits) - 1);
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) {
    const auto zero = static_cast<float>(zeros[groups[k]]);
    const float q = nearest(smaller(larger(w[k] / scales[groups[k]], -zero), top - zero));
    codes[k] = static_cast<uint8_t>(static_cast<int32_t>(q + zero));
  }
}

void dequantize(int64_t n, const uint8_t* codes, const float* scales, const uint8_t* zeros, const int32_t* groups,
                float* w) {
#pragma omp simd
  for (int64_t k = 0; k < n; ++k) {
    w[k] = scales[groups[k]] * static_cast<float>(static_cast<int32_t>(codes[k]) - zeros[groups[k]]);
  }
}

#define GPTQ_TEXT_OF(name) #name
#define GPTQ_TEXT(name) GPTQ_TEXT_OF(name)

}  // namespace

extern const NarrowKernels kNarrowKernels;
extern const ProductKernels kProductKernels;
extern const Kernels kKernels;
const Kernels kKernels = {
    .isa = GPTQ_TEXT(GPTQ_ISA),
    .products = &kProductKernels,
    .narrow = &kNarrowKernels,
    .lanes = kLanes,
    .f16_to_f32 = f16_to_f32,
    .bf16_to_f32 = bf16_to_f32,
    .f32_to_f16 = f32_to_f16,
    .f32_to_bf16 = f32_to_bf16,
    .add = add,
    .add_bf16 = add,
    .add_products = add_products,
    .scale = scale,
    .scale_by = scale_by,
    .scale_by_bf16 = scale_by,
    .add_line = add_line,
    .centre = centre,
    .sum_of_squares = sum_of_squares,
    .product = product,
    .all_finite = all_finite,
    .all_finite_16 = all_finite_16,
    .rotate = rotate,
    .rotate_bf16 = rotate,
    .rotate_pairs = rotate_pairs,
    .gates = kGates<float>,
    .gates_bf16 = kGatesBf16,
    .softplus = softplus,
    .scan = scan,
    .hard_cap = hard_cap,
    .soft_cap = soft_cap,
    .maximum = maximum,
    .soften = soften,
    .soften_bf16 = soften_bf16,
    .sum_of_exponentials = sum_of_exponentials,
    .divergence = divergence,
    .find_grid = find_grid,
    .quantize_columns = quantize_columns,
    .round_columns = round_columns,
    .dequantize = dequantize,
};

}  // namespace GPTQ_ISA
}  // namespace gptq
