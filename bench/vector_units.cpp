#include "vector_units.h"

#include <algorithm>
#include <cstdio>

#include "backend/cpu/kernels.h"
#include "backend/cpu/product_kernels.h"
#include "base/cpu_features.h"
#include "base/parallel.h"
#include "base/resources.h"
#include "base/stopwatch.h"
#include "tensor/matrix.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace gptq {

#ifdef __x86_64__
namespace {

// Sums in flight: more than any of these processors needs to hide the latency, and they fit 16 registers, or 32. Where
// they start comes from memory: a compiler would merge sums that it knows to be equal.
constexpr int kSums = 12, kSumsOf512 = 24;
static_assert(16 * kSumsOf512 <= VectorUnit::kFloats);

__attribute__((target("avx2,fma"))) void fma_avx2(int64_t rounds, float* memory) {
  __m256 sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm256_loadu_ps(memory + 8 * i);
  const __m256 a = _mm256_set1_ps(0.999F), b = _mm256_set1_ps(0.001F);
  for (int64_t i = 0; i < rounds; ++i) {
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, a, b);
  }
  for (int i = 0; i < kSums; ++i) _mm256_storeu_ps(memory + 8 * i, sums[i]);
}

__attribute__((target("avx512f"))) void fma_avx512(int64_t rounds, float* memory) {
  __m512 sums[kSumsOf512];
  for (int i = 0; i < kSumsOf512; ++i) sums[i] = _mm512_loadu_ps(memory + 16 * i);
  const __m512 a = _mm512_set1_ps(0.999F), b = _mm512_set1_ps(0.001F);
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, a, b);
  }
  for (int i = 0; i < kSumsOf512; ++i) _mm512_storeu_ps(memory + 16 * i, sums[i]);
}

__attribute__((target("avx512f,avx512bf16"))) void dot_bf16(int64_t rounds, float* memory) {
  __m512 sums[kSumsOf512];
  for (int i = 0; i < kSumsOf512; ++i) sums[i] = _mm512_loadu_ps(memory + 16 * i);
  const __m512bh ones = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1), _mm512_set1_ps(1));
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, ones, ones);
  }
  for (int i = 0; i < kSumsOf512; ++i) _mm512_storeu_ps(memory + 16 * i, sums[i]);
}

// Sums in tiles 0 to 3, inputs in 4 to 7, as a product would use them; all of 16 rows of 64 bytes.
__attribute__((target("amx-tile,amx-bf16"))) void tiles_bf16(int64_t rounds, float* memory) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } const config;
  __asm__ volatile("" : : "r"(&config) : "memory");  // GCC's next line claims to read but 8 of its bytes
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int64_t i = 0; i < rounds; ++i) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, memory, 64);
  _tile_release();
}

}  // namespace

std::vector<VectorUnit> vector_units() {
  std::vector<VectorUnit> units;
  const bool avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  if (avx2) units.push_back({"AVX2 f32", DType::f32, 2 * 8 * kSums, fma_avx2});
  if (__builtin_cpu_supports("avx512f")) units.push_back({"AVX-512 f32", DType::f32, 2 * 16 * kSumsOf512, fma_avx512});
  if (__builtin_cpu_supports("avx512bf16"))
    units.push_back({"AVX-512 bf16", DType::bf16, 2 * 32 * kSumsOf512, dot_bf16});
  if (may_use_amx()) units.push_back({"AMX bf16", DType::bf16, 4 * 2 * 16 * 16 * 32, tiles_bf16});
  return units;
}
#else
std::vector<VectorUnit> vector_units() { return {}; }
#endif

double seconds_now(int threads) {
  static const Stopwatch since_start;
  return threads == 1 ? cpu_seconds() : since_start.seconds();
}

namespace {

// The best rate in so many seconds at which all threads do work(thread), of so many operations.
template <typename Work>
double best_rate(ThreadPool& pool, double seconds, double flops, const Work& work) {
  double best = 0;
  for (const Stopwatch watch; watch.seconds() < seconds;) {
    const double start = seconds_now(pool.size());
    pool.for_each(pool.size(), work);
    best = std::max(best, flops * pool.size() / (seconds_now(pool.size()) - start));
  }
  return best;
}

// Rate of the micro-kernel on one A and one B panel in L1, with a k-block of kc or a half or quarter of it.
double kernel_rate(const ProductKernels& products, const ProductKernel& kernel, ThreadPool& pool, double seconds) {
  double best = 0;
  for (const int64_t part : {1, 2, 4}) {
    const int64_t dwords = kernel.dwords_of(kernel.kc * kernel.k_per_dword / part);
    const int64_t a_dwords = kernel.rows * (dwords + 16), b_dwords = kernel.cols * dwords;
    std::vector<Matrix> operands, sums;
    for (int thread = 0; thread < pool.size(); ++thread) {
      auto* dwords_of_panels = reinterpret_cast<uint32_t*>(
          operands.emplace_back(host_memory(), DType::f32, 1, a_dwords + b_dwords).row<float>(0));
      sums.emplace_back(host_memory(), DType::f32, kernel.rows, kernel.cols);
      // Any numbers of magnitudes 1/2 to 1, as f32 and as pairs of bf16: processors are quicker with zeros.
      uint32_t random = 1;
      for (int64_t i = 0; i < a_dwords + b_dwords; ++i) {
        random = random * 1664525U + 1013904223U;
        dwords_of_panels[i] = ((random ^ random >> 16) & 0x807f807fU) | 0x3f003f00U;
      }
    }
    const double flops = 2.0 * static_cast<double>(kernel.rows * kernel.cols * dwords * kernel.k_per_dword);
    // Some 20 ms: long beside waking threads, short enough to be left alone by other programs at times.
    const auto rounds = static_cast<int64_t>((kernel.tile_layout ? 3e10 : 2e9) / flops);
    const double rate = best_rate(pool, seconds / 3, flops * static_cast<double>(rounds), [&](int64_t thread) {
      const auto* a = reinterpret_cast<const uint32_t*>(operands[static_cast<size_t>(thread)].row<float>(0));
      float* const c = sums[static_cast<size_t>(thread)].row<float>(0);
      products.configure_tiles();
      for (int64_t i = 0; i < rounds; ++i) {
        kernel.multiply({.dwords = dwords,
                         .a = a,
                         .row_stride = kernel.tile_layout ? kernel.step : dwords + 16,
                         .step_stride = kernel.tile_layout ? kernel.step * kernel.rows : kernel.step,
                         .b = a + a_dwords},
                        c, kernel.cols, false);
      }
      products.release_tiles();
    });
    best = std::max(best, rate);
  }
  return best;
}

void print_peak(const char* name, double rate) { std::printf("peak of %-12s %8.1f GFLOP/s\n", name, rate / 1e9); }

}  // namespace

Peaks measure_peaks(int threads, double seconds) {
  const std::vector<VectorUnit> units = vector_units();
  const ProductKernels& products = *kernels_for_this_cpu().products;
  ThreadPool pool(threads);
  Peaks peaks;
  for (const VectorUnit& unit : units) {
    constexpr int64_t kRounds = 500'000;
    const double rate = best_rate(pool, seconds, unit.flops * kRounds, [&](int64_t) {
      float memory[VectorUnit::kFloats] = {};
      unit.loop(kRounds, memory);
    });
    print_peak(unit.name, rate);
    double& peak = (unit.inputs == DType::f32 ? peaks.f32 : peaks.bf16).registers;
    peak = std::max(peak, rate);
  }
  peaks.f32.kernel = kernel_rate(products, products.f32, pool, seconds);
  print_peak("f32 kernel", peaks.f32.kernel);
  if (products.multiply_bf16()) {
    peaks.bf16.kernel = kernel_rate(products, products.bf16, pool, seconds);
    print_peak("bf16 kernel", peaks.bf16.kernel);
  } else {
    peaks.bf16.kernel = peaks.f32.kernel;  // bf16 must be widened
  }
  if (peaks.bf16.registers == 0) peaks.bf16.registers = peaks.f32.registers;
  return peaks;
}

}  // namespace gptq
