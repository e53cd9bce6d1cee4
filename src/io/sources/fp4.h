// Weights of 4-bit floats (e2m1), two in a byte, the first in the lower half: MXFP4 and NVFP4.
#pragma once

#include <string>
#include <vector>

#include "io/folder_tensors.h"

namespace gptq {

// Inputs of a row that share a scale.
constexpr int64_t kMxfp4Group = 32, kNvfp4Group = 16;

// value = e2m1 * (scale * times / over), in f32, rounded to bf16.
class Fp4Rows final : public DecodedRows {
 public:
  // codes U8: `shape` [..., rows, cols] with two columns a byte; scales [..., rows, cols / group], cols a multiple of
  // group. The caller has checked both.
  Fp4Rows(FileTensor codes, std::string name, const std::vector<int64_t>& shape, FileTensor scales, int64_t group,
          bool transposed, float times = 1, float over = 1);

 private:
  size_t decode(const Tile& tile, float* to) const override;
  int64_t column_unit() const override { return group_; }

  FileTensor scales_;
  int64_t group_;
  float times_, over_;
};

}  // namespace gptq
