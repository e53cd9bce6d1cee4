// FP8 weights with scales, as in the releases of DeepSeek-V3 and Qwen3, dequantized to bf16 when read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace gptq {

// The value of an e4m3 number (S.EEEE.MMM, bias 7): 0x7f and 0xff are NaN, there is no infinity, the largest is 448.
// Format: Micikevicius et al., FP8 Formats for Deep Learning, https://arxiv.org/abs/2209.05433, table 1.
float e4m3_value(uint8_t bits);

// Rows and columns of a weight that share a scale.
struct Fp8Block {
  int64_t rows = 0, cols = 0;
};

// A tensor F8_E4M3 [..., rows, cols] with scales, in F32, F16, BF16 or F8_E8M0: [..., ceil(rows / block rows),
// ceil(cols / block cols)], or [rows, 1] or [rows] with one for each row, or a single one. value = e4m3 * scale,
// computed in f32 and rounded to bf16, to nearest with ties to even. Format:
// https://huggingface.co/docs/transformers/quantization/finegrained_fp8 (weight_block_size of config.json).
class Fp8Weight {
 public:
  // The tensor with the scales of `weight`: X.weight_scale_inv, X.weight_scale or X.scale; empty if there is none.
  static std::string scales_name(const std::string& weight, const std::function<bool(const std::string&)>& has);

  // `block` comes from config.json, {0, 0} if it has none. The files must outlive the weight. Throws InputError for
  // scales that do not fit the weight.
  Fp8Weight(const SafetensorsFile& file, const StoredTensor& codes, const SafetensorsFile& scales_file,
            const StoredTensor& scales, Fp8Block block);

  const StoredTensor& stored() const { return *codes_; }    // as stored
  const StoredTensor& as_bf16() const { return as_bf16_; }  // as read() returns it
  // Reads `count` elements from element `first` on, as bf16. Thread-safe; needs temporary memory for the scales.
  // Returns the number of bytes read from the files.
  size_t read(size_t first, size_t count, uint16_t* to) const;

 private:
  const SafetensorsFile *file_, *scales_file_;
  const StoredTensor *codes_, *scales_;
  StoredTensor as_bf16_;
  int64_t rows_ = 0, cols_ = 0;  // of one matrix
  Fp8Block block_;
};

}  // namespace gptq
