// FP8 weights with scales, as in the releases of DeepSeek-V3 and Qwen3, dequantized to bf16 when read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "io/folder_tensors.h"
#include "io/json.h"

namespace gptq {

// Rows and columns of a weight that share a scale.
struct Fp8Block {
  int64_t rows = 0, cols = 0;
};

// A tensor F8_E4M3 [..., rows, cols] with scales, in F32, F16, BF16 or F8_E8M0 (which U8 may hold): [..., ceil(rows /
// block rows), ceil(cols / block cols)], or [rows, 1] or [rows] with one for each row, or a single one. value = e4m3 *
// scale, computed in f32 and rounded to bf16, to nearest with ties to even. Format:
// https://huggingface.co/docs/transformers/quantization/finegrained_fp8 (weight_block_size of config.json).
class Fp8Weight final : public DecodedWeight {
 public:
  // `block` comes from config.json, {0, 0} if it has none. Throws InputError for scales that do not fit the weight.
  Fp8Weight(FileTensor codes, FileTensor scales, Fp8Block block);

  // Needs temporary memory for the scales.
  size_t read(size_t first, size_t count, void* to) const override;

 private:
  FileTensor scales_;
  int64_t rows_ = 0, cols_ = 0;  // of one matrix
  Fp8Block block_;
};

// Two sizes [rows, cols], or {0, 0} for null. Throws InputError, naming the key, for anything else.
Fp8Block fp8_block(const Json& size, std::string_view key, const FolderTensors& tensors);

// Puts all F8_E4M3 tensors in place, and hides their scales and those of their inputs.
void decode_fp8(FolderTensors& tensors, Fp8Block block);

}  // namespace gptq
