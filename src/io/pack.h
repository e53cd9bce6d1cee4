// Codes and zeros as 32-bit words. One rule covers 2, 3, 4 and 8 bits: a dense stream, code i at bit i *
// bits, low bits first, cut into 32-bit words. Sizes must fill whole words.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/parallel.h"

namespace gptq {

// The inverse of the op pack: words [length * bits / 32, count], one stream a column -> codes [count, length].
std::vector<uint8_t> unpack_streams(std::span<const uint32_t> words, int64_t length, int64_t count, int bits,
                                    ThreadPool& pool);

// codes [rows, cols] -> words [rows, cols * bits / 32]: streams run along the rows. cols * bits is a multiple of 32.
std::vector<uint32_t> pack_cols(std::span<const uint8_t> codes, int64_t rows, int64_t cols, int bits);
std::vector<uint8_t> unpack_cols(std::span<const uint32_t> words, int64_t rows, int64_t cols, int bits);

// [rows, cols] -> [cols, rows]
template <typename T>
std::vector<T> transposed(std::span<const T> values, int64_t rows, int64_t cols) {
  constexpr int64_t kTile = 32;  // both sides of a tile stay in cache
  std::vector<T> result(values.size());
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (int64_t c0 = 0; c0 < cols; c0 += kTile) {
      for (int64_t r = r0; r < rows && r < r0 + kTile; ++r) {
        for (int64_t c = c0; c < cols && c < c0 + kTile; ++c) result[c * rows + r] = values[r * cols + c];
      }
    }
  }
  return result;
}

}  // namespace gptq
