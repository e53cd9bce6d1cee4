// Rows of whole numbers with a scale and a zero point for each group of inputs: value = (code - zero) * scale.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/folder_tensors.h"

namespace gptq {

// What a tile of rows is made of, as their format stores it. `groups` of a row; sizes as vectors [rows, cols] and
// [rows, groups].
struct IntegerTile {
  std::vector<int16_t> codes, zeros;
  std::vector<float> scales;
  std::vector<int32_t> g_idx;  // the group of each column
  size_t bytes_read = 0;
};

// The group of each column, where groups are of neighbouring ones.
std::vector<int32_t> groups_in_order(int64_t cols, int64_t groups);

class IntegerRows : public DecodedRows {
 protected:
  // The dtype of the values is that of the scales.
  IntegerRows(FileTensor codes, std::string name, const std::vector<int64_t>& shape, FileTensor scales, int64_t groups,
              bool transposed);

  const FileTensor& scales() const { return scales_; }
  int64_t groups() const { return groups_; }
  // Those of rows [first, first + count), where they are stored as [groups, rows].
  std::vector<float> scales_of_columns(int64_t first, int64_t count) const;
  // Rows [first, first + count).
  virtual IntegerTile read_tile(int64_t first, int64_t count) const = 0;

 private:
  size_t decode(const Tile& tile, float* to) const final;

  FileTensor scales_;
  int64_t groups_;
};

}  // namespace gptq
