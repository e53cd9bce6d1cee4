// Partitions of a range of rows, columns or k into blocks.
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/rounding.h"

namespace gptq {

// Blocks of one size, at most `most` rounded up to a multiple of `unit`; the last block may be shorter.
struct Partition {
  int64_t size, block_size, count;
  Partition(int64_t size, int64_t most, int64_t unit = 16) : size(size) {
    const int64_t blocks = std::max<int64_t>(1, pieces_of(size, most));
    block_size = std::max(unit, rounded_up(pieces_of(size, blocks), unit));
    count = pieces_of(size, block_size);
  }
  int64_t start(int64_t i) const { return i * block_size; }
  int64_t length(int64_t i) const { return std::min(block_size, size - start(i)); }
};

// At most `blocks` blocks whose sizes differ by one unit at most, so that threads finish together.
struct EvenPartition {
  int64_t size, unit, count;
  EvenPartition(int64_t size, int64_t blocks, int64_t unit)
      : size(size), unit(unit), count(std::clamp<int64_t>(blocks, 1, std::max<int64_t>(1, pieces_of(size, unit)))) {}
  int64_t start(int64_t i) const { return std::min(size, pieces_of(size, unit) * i / count * unit); }
  int64_t length(int64_t i) const { return start(i + 1) - start(i); }
};

}  // namespace gptq
