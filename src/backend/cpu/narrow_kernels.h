// The kernels that multiply a few rows by weights as they are stored: codes of 2, 3, 4 or 8 bits, and bf16.
#pragma once

#include <cstdint>

#include "backend/cpu/kernels.h"

namespace gptq {

// Some outputs of a packed weight, from a group's first word on: the streams of bits run down the columns.
struct CodeColumns {
  const uint32_t* words = nullptr;
  int64_t stride = 0, count = 0;
  int bits = 4;
};

struct NarrowKernels {
  // The most rows of x that one call takes.
  static constexpr int64_t kMostRows = 4;

  // sums[i, c] += sum_k x[i, k] code[k, c] for the inputs of a group: whole words.
  void (*add_codes)(const CodeColumns& codes, int64_t inputs, FloatRows x, int64_t rows, float* sums, int64_t stride);
  // The same for codes of 2 or 4 bits and x in bf16, whose elements lie as paired_bf16() has them; null where the
  // processor has no dot products of bf16. Rows of sums have room for a multiple of 16.
  void (*add_codes_bf16)(const CodeColumns& codes, int64_t inputs, const uint32_t* x, int64_t stride, int64_t rows,
                         float* sums, int64_t sum_stride);
  // y += scale (sum - zero * total) for n outputs, where total is the sum of the group's x.
  void (*add_group)(const float* sums, const float* scales, const uint8_t* zeros, float total, int64_t n, float* y);

  // sum x * w, in several partial sums.
  float (*product)(const float* x, const float* w, int64_t n);
  float (*product_bf16)(const float* x, const uint16_t* w, int64_t n);
};

// Element j of each word's codes beside the one half a word behind it, as a dword. y [n / 2]
inline void paired_bf16(const uint16_t* x, int64_t n, int bits, uint32_t* y) {
  const int64_t half = 16 / bits;
  for (int64_t k = 0; k < n; k += 2 * half) {
    for (int64_t j = 0; j < half; ++j) *y++ = x[k + j] | static_cast<uint32_t>(x[k + half + j]) << 16;
  }
}

}  // namespace gptq
