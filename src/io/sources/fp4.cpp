#include "io/sources/fp4.h"

#include <utility>

#include "io/small_floats.h"

namespace gptq {

Fp4Rows::Fp4Rows(FileTensor codes, std::string name, const std::vector<int64_t>& shape, FileTensor scales,
                 int64_t group, bool transposed, float times, float over)
    : DecodedRows(codes, std::move(name), shape, DType::bf16, transposed),
      scales_(scales),
      group_(group),
      times_(times),
      over_(over) {}

size_t Fp4Rows::decode(const Tile& tile, float* to) const {
  // Whole rows lie side by side in the file.
  const bool is_whole = tile.cols == cols();
  const int64_t pieces = is_whole ? 1 : tile.rows, values = tile.rows * tile.cols / pieces;
  std::vector<uint8_t> codes(static_cast<size_t>(values / 2));
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t first = (tile.row + piece) * cols() + tile.col;
    stored().read(static_cast<size_t>(first / 2), codes.size(), codes.data());
    const std::vector<float> scales =
        read_floats(scales_, static_cast<size_t>(first / group_), static_cast<size_t>(values / group_));
    for (int64_t g = 0; g < values / group_; ++g) {
      const float scale = scales[static_cast<size_t>(g)] * times_ / over_;
      const uint8_t* from = &codes[static_cast<size_t>(g * group_ / 2)];
      for (int64_t i = 0; i < group_ / 2; ++i) {
        *to++ = kE2m1Values[from[i] & 0xfU] * scale;
        *to++ = kE2m1Values[from[i] >> 4U] * scale;
      }
    }
  }
  const auto all = static_cast<size_t>(tile.rows * tile.cols);
  return all / 2 + all / static_cast<size_t>(group_) * float_bytes(scales_);
}

}  // namespace gptq
