#include "io/sources/integer_rows.h"

#include <utility>

#include "base/error.h"
#include "base/rounding.h"

namespace gptq {

std::vector<int32_t> groups_in_order(int64_t cols, int64_t groups) {
  const int64_t size = pieces_of(cols, groups);
  std::vector<int32_t> g_idx(static_cast<size_t>(cols));
  for (int64_t k = 0; k < cols; ++k) g_idx[static_cast<size_t>(k)] = static_cast<int32_t>(k / size);
  return g_idx;
}

IntegerRows::IntegerRows(FileTensor codes, std::string name, const std::vector<int64_t>& shape, FileTensor scales,
                         int64_t groups, bool transposed)
    : DecodedRows(codes, std::move(name), shape, parse_safetensors_dtype(scales.tensor->dtype).value_or(DType::f32),
                  transposed),
      scales_(scales),
      groups_(groups) {}

std::vector<float> IntegerRows::scales_of_columns(int64_t first, int64_t count) const {
  std::vector<float> result(static_cast<size_t>(count * groups_));
  for (int64_t g = 0; g < groups_; ++g) {
    const std::vector<float> row =
        read_floats(scales_, static_cast<size_t>(g * rows() + first), static_cast<size_t>(count));
    for (int64_t r = 0; r < count; ++r) result[static_cast<size_t>(r * groups_ + g)] = row[static_cast<size_t>(r)];
  }
  return result;
}

size_t IntegerRows::decode(const Tile& tile, float* to) const {
  const IntegerTile parts = read_tile(tile.row, tile.rows);
  for (const int32_t group : parts.g_idx) {
    if (group >= 0 && group < groups_) continue;
    throw tensor_error(stored().file->path(), values().name, "the groups of '", values().name, "' name group ", group,
                       " of ", groups_);
  }
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int16_t *codes = &parts.codes[static_cast<size_t>(r * cols())],
                  *zeros = &parts.zeros[static_cast<size_t>(r * groups_)];
    const float* scales = &parts.scales[static_cast<size_t>(r * groups_)];
    for (int64_t k = 0; k < cols(); ++k) {
      const int32_t group = parts.g_idx[static_cast<size_t>(k)];
      *to++ = static_cast<float>(codes[k] - zeros[group]) * scales[group];
    }
  }
  return parts.bytes_read;
}

}  // namespace gptq
