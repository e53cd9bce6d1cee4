#include "vector_units.h"

#include <algorithm>
#include <cstdio>

#include "base/parallel.h"
#include "base/resources.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace gptq {

#ifdef __x86_64__
namespace {

// Sums in flight: more than any of these processors needs to hide the latency (at most 10), and they fit 16 registers.
// Where they start comes from memory: a compiler would merge sums that it knows to be equal.
constexpr int kSums = 12;

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
  __m512 sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_loadu_ps(memory + 16 * i);
  const __m512 a = _mm512_set1_ps(0.999F), b = _mm512_set1_ps(0.001F);
  for (int64_t i = 0; i < rounds; ++i) {
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, a, b);
  }
  for (int i = 0; i < kSums; ++i) _mm512_storeu_ps(memory + 16 * i, sums[i]);
}

__attribute__((target("avx512f,avx512bf16"))) void dot_bf16(int64_t rounds, float* memory) {
  __m512 sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_loadu_ps(memory + 16 * i);
  const __m512bh ones = _mm512_cvtne2ps_pbh(_mm512_set1_ps(1), _mm512_set1_ps(1));
  for (int64_t i = 0; i < rounds; ++i) {
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, ones, ones);
  }
  for (int i = 0; i < kSums; ++i) _mm512_storeu_ps(memory + 16 * i, sums[i]);
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
  if (__builtin_cpu_supports("avx512f")) units.push_back({"AVX-512 f32", DType::f32, 2 * 16 * kSums, fma_avx512});
  if (__builtin_cpu_supports("avx512bf16")) units.push_back({"AVX-512 bf16", DType::bf16, 2 * 32 * kSums, dot_bf16});
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

Peaks measure_peaks(int threads, double seconds) {
  const std::vector<VectorUnit> units = vector_units();
  ThreadPool pool(threads);
  Peaks peaks;
  for (const VectorUnit& unit : units) {
    constexpr int64_t kRounds = 500'000;
    double best = 0;
    for (const Stopwatch watch; watch.seconds() < seconds;) {
      const double start = seconds_now(pool.size());
      pool.for_each(pool.size(), [&](int64_t) {
        float memory[256] = {};
        unit.loop(kRounds, memory);
      });
      best = std::max(best, unit.flops * kRounds * pool.size() / (seconds_now(pool.size()) - start));
    }
    std::printf("peak of %-12s %8.1f GFLOP/s\n", unit.name, best / 1e9);
    double& peak = unit.inputs == DType::f32 ? peaks.f32 : peaks.bf16;
    peak = std::max(peak, best);
  }
  if (peaks.bf16 == 0) peaks.bf16 = peaks.f32;  // without a unit of its own, bf16 must be widened
  return peaks;
}

}  // namespace gptq
