// How work is cut into tiles.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/rounding.h"

namespace gptq {

// A range cut evenly into pieces of about `edge`, their borders at multiples of `unit`.
struct Cut {
  int64_t size, piece, count;
  Cut(int64_t size, int64_t edge, int64_t unit = 16) : size(size) {
    const int64_t pieces = std::max<int64_t>(1, pieces_of(size, edge));
    piece = std::max(unit, rounded_up(pieces_of(size, pieces), unit));
    count = pieces_of(size, piece);
  }
  int64_t start(int64_t i) const { return i * piece; }
  int64_t length(int64_t i) const { return std::min(piece, size - start(i)); }
};

// A range cut into pieces whose lengths differ by one unit at most, for threads that are to end together.
struct EvenCut {
  int64_t size, unit, count;
  EvenCut(int64_t size, int64_t pieces, int64_t unit)
      : size(size), unit(unit), count(std::clamp<int64_t>(pieces, 1, std::max<int64_t>(1, pieces_of(size, unit)))) {}
  int64_t start(int64_t i) const { return std::min(size, pieces_of(size, unit) * i / count * unit); }
  int64_t length(int64_t i) const { return start(i + 1) - start(i); }
};

}  // namespace gptq
