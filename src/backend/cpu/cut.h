// How work is cut into tiles.
#pragma once

#include <algorithm>
#include <cstdint>

namespace gptq {

// A range cut evenly into pieces of about `edge`, their borders at multiples of `unit`.
struct Cut {
  int64_t size, piece, count;
  Cut(int64_t size, int64_t edge, int64_t unit = 16) : size(size) {
    const int64_t pieces = std::max<int64_t>(1, (size + edge - 1) / edge);
    piece = std::max<int64_t>(1, ((size + pieces - 1) / pieces + unit - 1) / unit) * unit;
    count = (size + piece - 1) / piece;
  }
  int64_t start(int64_t i) const { return i * piece; }
  int64_t length(int64_t i) const { return std::min(piece, size - start(i)); }
};

}  // namespace gptq
