#include "io/pack.h"

#include <algorithm>
#include <cassert>

namespace gptq {
namespace {

// One stream's next code, `bits` wide. A code may straddle two words.
struct BitPosition {
  int64_t word;
  int shift;
};

BitPosition position(int64_t code, int bits) { return {code * bits / 32, static_cast<int>(code * bits % 32)}; }

}  // namespace

std::vector<uint8_t> unpack_streams(std::span<const uint32_t> words, int64_t length, int64_t count, int bits,
                                    ThreadPool& pool) {
  constexpr int64_t kTask = 64;  // streams whose codes are written side by side: their lines stay in cache
  std::vector<uint8_t> codes(static_cast<size_t>(length * count));
  const uint32_t mask = (1U << bits) - 1;
  pool.for_each((count + kTask - 1) / kTask, [&](int64_t task) {
    const int64_t first = task * kTask, end = std::min(count, first + kTask);
    for (int64_t i = 0; i < length; ++i) {
      const auto [word, shift] = position(i, bits);
      const uint32_t* from = &words[word * count];
      for (int64_t stream = first; stream < end; ++stream) {
        uint32_t value = from[stream] >> shift;
        if (shift + bits > 32) value |= from[count + stream] << (32 - shift);
        codes[stream * length + i] = static_cast<uint8_t>(value & mask);
      }
    }
  });
  return codes;
}

std::vector<uint32_t> pack_cols(std::span<const uint8_t> codes, int64_t rows, int64_t cols, int bits) {
  assert(cols * bits % 32 == 0 && static_cast<int64_t>(codes.size()) == rows * cols);
  const int64_t width = cols * bits / 32;
  std::vector<uint32_t> words(static_cast<size_t>(rows * width));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const auto [word, shift] = position(c, bits);
      const uint32_t code = codes[r * cols + c];
      words[r * width + word] |= code << shift;
      if (shift + bits > 32) words[r * width + word + 1] |= code >> (32 - shift);
    }
  }
  return words;
}

std::vector<uint8_t> unpack_cols(std::span<const uint32_t> words, int64_t rows, int64_t cols, int bits) {
  const int64_t width = cols * bits / 32;
  const uint32_t mask = (1U << bits) - 1;
  std::vector<uint8_t> codes(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const auto [word, shift] = position(c, bits);
      uint32_t value = words[r * width + word] >> shift;
      if (shift + bits > 32) value |= words[r * width + word + 1] << (32 - shift);
      codes[r * cols + c] = static_cast<uint8_t>(value & mask);
    }
  }
  return codes;
}

}  // namespace gptq
