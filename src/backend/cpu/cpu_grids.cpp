// Ops on grids and codes. A task of find_grid or quantize_columns is as many rows as a SIMD register has lanes.
#include <algorithm>
#include <cstring>
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace gptq {
namespace {

// The stream of `count` codes, eight at a time: pairs, then fours, then eights of neighbouring fields close up.
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

}  // namespace

void CpuBackend::find_grid(ConstMatrixView w, ConstMatrixView importance, int64_t group_size, const GridSearch& search,
                           MatrixView scales, MatrixView zeros) {
  if (scales.empty()) return;
  std::vector<float> weights(static_cast<size_t>(w.cols), 1.0F);
  const float* weight = importance.empty() ? weights.data() : importance.row<float>(0);
  const int64_t tiles = (w.rows + kernels_.lanes - 1) / kernels_.lanes;
  const GridRules rules = {search.bits,         search.candidates,  search.symmetric, search.signed_scales,
                           search.search_zeros, search.shrink_step, search.norm};
  pool_.for_each(tiles, [&](int64_t tile) {
    const int64_t first = tile * kernels_.lanes, rows = std::min(kernels_.lanes, w.rows - first);
    ScratchPool::Lease lease = scratch_.borrow(kernels_.lanes * group_size);
    float* scratch = lease.take(kernels_.lanes * group_size);
    for (int64_t group = 0; group < scales.cols; ++group) {
      const int64_t column = group * group_size;
      kernels_.find_grid(rows, {w.row<float>(first) + column, w.stride}, weight + column, group_size, rules,
                         scales.row<float>(first) + group, scales.stride, zeros.row<uint8_t>(first) + group,
                         zeros.stride, scratch);
    }
  });
}

void CpuBackend::quantize_columns(ConstMatrixView w, ConstMatrixView feedback, ConstMatrixView factor,
                                  std::span<const int32_t> groups, const Grid& grid, MatrixView codes,
                                  MatrixView errors, MatrixView loss) {
  if (w.empty()) return;
  const int64_t tiles = (w.rows + kernels_.lanes - 1) / kernels_.lanes, n = w.cols;
  pool_.for_each(tiles, [&](int64_t tile) {
    const int64_t first = tile * kernels_.lanes, rows = std::min(kernels_.lanes, w.rows - first);
    ScratchPool::Lease lease = scratch_.borrow(2 * kernels_.lanes * n);
    const GridRows grid_rows = {grid.scales.row<float>(first),
                                grid.zeros.row<uint8_t>(first),
                                grid.scales.stride,
                                grid.zeros.stride,
                                groups.data(),
                                grid.bits};
    kernels_.quantize_columns(rows, n, {w.row<float>(first), w.stride}, {feedback.row<float>(first), feedback.stride},
                              {factor.row<float>(0), factor.stride}, grid_rows, codes.row<uint8_t>(first), codes.stride,
                              errors.row<float>(first), errors.stride, loss.row<float>(first), loss.stride,
                              lease.take(2 * kernels_.lanes * n));
  });
}

void CpuBackend::round_columns(ConstMatrixView w, std::span<const int32_t> groups, const Grid& grid, MatrixView codes) {
  for_rows(w.rows, w.cols, 0, [&](int64_t row, float*) {
    kernels_.round_columns(w.cols, w.row<float>(row), grid.scales.row<float>(row), grid.zeros.row<uint8_t>(row),
                           groups.data(), grid.bits, codes.row<uint8_t>(row));
  });
}

void CpuBackend::dequantize(ConstMatrixView codes, std::span<const int32_t> groups, const Grid& grid, MatrixView w) {
  for_rows(w.rows, w.cols, 1, [&](int64_t row, float* scratch) {
    float* values = begin_row(w, row, scratch);
    kernels_.dequantize(w.cols, codes.row<uint8_t>(row), grid.scales.row<float>(row), grid.zeros.row<uint8_t>(row),
                        groups.data(), values);
    finish_row(values, w, row);
  });
}

// A task is a tile of the codes: its streams go to a small matrix first, which is then transposed.
void CpuBackend::pack(ConstMatrixView codes, int bits, MatrixView words) {
  constexpr int64_t kRows = 64, kWords = 48;  // whole streams begin and end at multiples of 48 words, of 3 bits too
  const int64_t tiles_down = (codes.rows + kRows - 1) / kRows, tiles_across = (words.rows + kWords - 1) / kWords;
  pool_.for_each(tiles_down * tiles_across, [&](int64_t task) {
    const int64_t first_row = task % tiles_down * kRows, first_word = task / tiles_down * kWords;
    const int64_t rows = std::min(kRows, codes.rows - first_row), count = std::min(kWords, words.rows - first_word);
    uint32_t tile[kRows * kWords];
    for (int64_t r = 0; r < rows; ++r) {
      pack_stream(codes.row<uint8_t>(first_row + r) + first_word * 32 / bits, count * 32 / bits, bits,
                  tile + r * kWords);
    }
    for (int64_t word = 0; word < count; ++word) {
      uint32_t* to = words.row<uint32_t>(first_word + word) + first_row;
      for (int64_t r = 0; r < rows; ++r) to[r] = tile[r * kWords + word];
    }
  });
}

}  // namespace gptq
