// Weights stored in 8 bits with scales, as DeepSeek-V3's and Qwen3's FP8 releases have them, read as the bf16 weights
// that they stand for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace gptq {

// The value of 8 bits in e4m3 (S.EEEE.MMM, bias 7): 0x7f and 0xff are NaN, there is no infinity, 448 is the largest.
// Format: Micikevicius et al., FP8 Formats for Deep Learning, https://arxiv.org/abs/2209.05433, table 1.
float e4m3_value(uint8_t bits);

// How many rows and columns of a weight share a scale.
struct Fp8Block {
  int64_t rows = 0, cols = 0;
};

// A tensor F8_E4M3 [..., rows, cols] with scales, in F32, F16 or BF16: [..., ceil(rows / block rows), ceil(cols / block
// cols)], or [rows, 1] with one for each row, or a single one. value = e4m3 * scale, worked out in f32 and rounded to
// bf16, to nearest with ties to even.
// Format: https://huggingface.co/docs/transformers/quantization/finegrained_fp8 (weight_block_size of config.json).
class Fp8Weight {
 public:
  // The name of the tensor that holds the scales of `weight`: X.weight_scale_inv, or X.weight_scale; empty for none.
  static std::string scales_name(const std::string& weight, const std::function<bool(const std::string&)>& has);

  // `block` is what config.json says, {0, 0} where it says nothing. The files must outlive the weight. Throws
  // InputError for scales that do not fit the weight.
  Fp8Weight(const SafetensorsFile& file, const StoredTensor& codes, const SafetensorsFile& scales_file,
            const StoredTensor& scales, Fp8Block block);

  const StoredTensor& stored() const { return *codes_; }    // as its file has it
  const StoredTensor& as_bf16() const { return as_bf16_; }  // as it is read
  // Reads `count` elements, from element `first` on, as bf16. Any thread may call it; it takes the memory of the scales
  // beside. Returns the bytes that it read.
  size_t read(size_t first, size_t count, uint16_t* to) const;

 private:
  const SafetensorsFile *file_, *scales_file_;
  const StoredTensor *codes_, *scales_;
  StoredTensor as_bf16_;
  int64_t rows_ = 0, cols_ = 0;  // of one matrix
  Fp8Block block_;
};

}  // namespace gptq
