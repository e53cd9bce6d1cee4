// Codes packed into streams of bits.
#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

// The bit stream of `count` codes, eight at a time: neighbouring fields are joined to pairs, fours and eights.
void pack_stream(const uint8_t* codes, int64_t count, int bits, uint32_t* words) {
  if (bits == 8) {
    std::memcpy(words, codes, static_cast<size_t>(count));
    return;
  }
  const uint64_t pairs = ((1U << 2 * bits) - 1) * 0x0001000100010001U,
                 fours = ((1U << 4 * bits) - 1) * 0x0000000100000001U, all = (uint64_t{1} << 8 * bits) - 1;
  uint64_t stream = 0;
  int filled = 0;  // bits of it; below 32 before eight codes add at most 32
  for (int64_t k = 0; k < count; k += 8) {
    uint64_t eight;
    std::memcpy(&eight, codes + k, sizeof eight);
    eight = (eight | eight >> (8 - bits)) & pairs;
    eight = (eight | eight >> (16 - 2 * bits)) & fours;
    eight = (eight | eight >> (32 - 4 * bits)) & all;
    stream |= eight << filled;
    filled += 8 * bits;
    if (filled < 32) continue;
    *words++ = static_cast<uint32_t>(stream);
    stream >>= 32;
    filled -= 32;
  }
}

// A task is a tile of the codes: its streams are written to a small matrix, which is then transposed.
void pack(CpuBackend& cpu, const ops::Pack& op) {
  constexpr int64_t kRows = 64, kWords = 48;  // streams of 3 bits too begin and end at multiples of 48 words
  const int64_t tiles_down = (op.codes.rows + kRows - 1) / kRows, tiles_across = (op.words.rows + kWords - 1) / kWords;
  cpu.pool.for_each(tiles_down * tiles_across, [&](int64_t task) {
    const int64_t first_row = task % tiles_down * kRows, first_word = task / tiles_down * kWords;
    const int64_t rows = std::min(kRows, op.codes.rows - first_row),
                  count = std::min(kWords, op.words.rows - first_word);
    uint32_t tile[kRows * kWords];
    for (int64_t r = 0; r < rows; ++r) {
      pack_stream(op.codes.row<uint8_t>(first_row + r) + first_word * 32 / op.bits, count * 32 / op.bits, op.bits,
                  tile + r * kWords);
    }
    for (int64_t word = 0; word < count; ++word) {
      uint32_t* to = op.words.row<uint32_t>(first_word + word) + first_row;
      for (int64_t r = 0; r < rows; ++r) to[r] = tile[r * kWords + word];
    }
  });
}

}  // namespace

void add_pack_ops(CpuOps& table) { table.add<pack>(); }

}  // namespace gptq::cpu
