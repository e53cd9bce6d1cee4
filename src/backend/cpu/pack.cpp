// Codes packed into streams of bits.
#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

// Bits of eight fields in 64: joined to pairs, in fours, and all together.
struct FieldMasks {
  explicit FieldMasks(int bits)
      : ones(((1U << bits) - 1) * 0x0101010101010101U),
        pairs(((1U << 2 * bits) - 1) * 0x0001000100010001U),
        fours(((1U << 4 * bits) - 1) * 0x0000000100000001U),
        all((uint64_t{1} << 8 * bits) - 1) {}
  uint64_t ones, pairs, fours, all;
};

// The bit stream of `count` codes, eight at a time: neighbouring fields are joined to pairs, fours and eights.
void pack_stream(const uint8_t* codes, int64_t count, int bits, uint32_t* words) {
  if (bits == 8) {
    std::memcpy(words, codes, static_cast<size_t>(count));
    return;
  }
  const FieldMasks masks(bits);
  uint64_t stream = 0;
  int filled = 0;  // bits of it; below 32 before eight codes add at most 32
  for (int64_t k = 0; k < count; k += 8) {
    uint64_t eight;
    std::memcpy(&eight, codes + k, sizeof eight);
    eight = (eight | eight >> (8 - bits)) & masks.pairs;
    eight = (eight | eight >> (16 - 2 * bits)) & masks.fours;
    eight = (eight | eight >> (32 - 4 * bits)) & masks.all;
    stream |= eight << filled;
    filled += 8 * bits;
    if (filled < 32) continue;
    *words++ = static_cast<uint32_t>(stream);
    stream >>= 32;
    filled -= 32;
  }
}

// The way back.
void unpack_stream(const uint32_t* words, int64_t count, int bits, uint8_t* codes) {
  if (bits == 8) {
    std::memcpy(codes, words, static_cast<size_t>(count));
    return;
  }
  const FieldMasks masks(bits);
  uint64_t stream = 0;
  int filled = 0;  // bits of it; below 32 before a word is added
  for (int64_t k = 0; k < count; k += 8) {
    if (filled < 8 * bits) {
      stream |= uint64_t{*words++} << filled;
      filled += 32;
    }
    uint64_t eight = stream & masks.all;
    stream >>= 8 * bits;
    filled -= 8 * bits;
    eight = (eight | eight << (32 - 4 * bits)) & masks.fours;
    eight = (eight | eight << (16 - 2 * bits)) & masks.pairs;
    eight = (eight | eight << (8 - bits)) & masks.ones;
    std::memcpy(codes + k, &eight, sizeof eight);
  }
}

constexpr int64_t kRows = 64, kWords = 48;  // of a tile; streams of 3 bits too begin and end at multiples of 48 words

// Calls visit(first row, rows, first word, words) for each tile of codes [rows, ...] that are `words` long.
template <typename Visit>
void for_tiles(CpuBackend& cpu, int64_t rows, int64_t words, const Visit& visit) {
  const int64_t tiles_down = (rows + kRows - 1) / kRows, tiles_across = (words + kWords - 1) / kWords;
  cpu.pool.for_each(tiles_down * tiles_across, [&](int64_t task) {
    const int64_t first_row = task % tiles_down * kRows, first_word = task / tiles_down * kWords;
    visit(first_row, std::min(kRows, rows - first_row), first_word, std::min(kWords, words - first_word));
  });
}

// A task is a tile of the codes: its streams are written to a small matrix, which is then transposed.
void pack(CpuBackend& cpu, const ops::Pack& op) {
  for_tiles(cpu, op.codes.rows, op.words.rows, [&](int64_t first_row, int64_t rows, int64_t first_word, int64_t count) {
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

void unpack(CpuBackend& cpu, const ops::Unpack& op) {
  for_tiles(cpu, op.codes.rows, op.words.rows, [&](int64_t first_row, int64_t rows, int64_t first_word, int64_t count) {
    uint32_t tile[kRows * kWords];
    for (int64_t word = 0; word < count; ++word) {
      const uint32_t* from = op.words.row<uint32_t>(first_word + word) + first_row;
      for (int64_t r = 0; r < rows; ++r) tile[r * kWords + word] = from[r];
    }
    for (int64_t r = 0; r < rows; ++r) {
      unpack_stream(tile + r * kWords, count * 32 / op.bits, op.bits,
                    op.codes.row<uint8_t>(first_row + r) + first_word * 32 / op.bits);
    }
  });
}

}  // namespace

void add_pack_ops(CpuOps& table) {
  table.add<pack>();
  table.add<unpack>();
}

}  // namespace gptq::cpu
