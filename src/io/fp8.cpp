#include "io/fp8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/rounding.h"

namespace gptq {
// Normal numbers: shifts exponent and mantissa and changes the bias to that of f32; the others are multiples of 2^-9.
// Branch-free, so that loops are vectorized.
float e4m3_value(uint8_t bits) {
  const uint32_t magnitude = bits & 0x7fU;
  const uint32_t normal = (magnitude << 20) + (120U << 23);
  const auto small = std::bit_cast<uint32_t>(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-9F);
  const uint32_t is_small = 0U - static_cast<uint32_t>(magnitude < 8);
  const uint32_t is_nan = 0U - static_cast<uint32_t>(magnitude == 0x7fU);
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80U) << 24;
  return std::bit_cast<float>((small & is_small) | (normal & ~is_small) | (0x7fc00000U & is_nan) | sign);
}

namespace {

// Dequantizes `count` codes that share a scale. The codes occupy the upper half of the output, so they are copied out a
// chunk at a time before values overwrite them.
void dequantize(const uint8_t* codes, int64_t count, float scale, uint16_t* to) {
  constexpr int64_t kChunk = 256;
  uint8_t chunk[kChunk];
  // Rounds as Bf16 does, without its branch for NaN: this NaN has few bits set, so rounding cannot make it a number.
  if (std::isnan(scale)) scale = std::numeric_limits<float>::quiet_NaN();
  for (int64_t start = 0; start < count; start += kChunk) {
    const int64_t size = std::min(kChunk, count - start);
    std::memcpy(chunk, codes + start, static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) {
      const auto word = std::bit_cast<uint32_t>(e4m3_value(chunk[i]) * scale);
      to[start + i] = static_cast<uint16_t>((word + 0x7fffU + ((word >> 16) & 1U)) >> 16);
    }
  }
}

// Scales that are powers of two (OCP Microscaling Formats, E8M0): 2^(byte - 127), and NaN for 255.
constexpr std::string_view kE8m0 = "F8_E8M0";

size_t scale_bytes(const StoredTensor& scales) {
  return scales.dtype == kE8m0 ? 1 : size_of(*parse_safetensors_dtype(scales.dtype));
}

float to_float(const void* data, const StoredTensor& scales, int64_t index) {
  if (scales.dtype == kE8m0) {
    const uint8_t bits = static_cast<const uint8_t*>(data)[index];
    return bits == 255 ? std::numeric_limits<float>::quiet_NaN() : std::ldexp(1.0F, bits - 127);
  }
  const DType dtype = *parse_safetensors_dtype(scales.dtype);
  if (dtype == DType::f32) return static_cast<const float*>(data)[index];
  if (dtype == DType::f16) return static_cast<float>(static_cast<const Half*>(data)[index]);
  return static_cast<float>(static_cast<const Bf16*>(data)[index]);
}

}  // namespace

std::string Fp8Weight::scales_name(const std::string& weight, const std::function<bool(const std::string&)>& has) {
  for (const char* suffix : {"_scale_inv", "_scale"}) {
    if (has(weight + suffix)) return weight + suffix;
  }
  const std::string beside = weight.substr(0, weight.rfind('.')) + ".scale";
  if (weight.ends_with(".weight") && has(beside)) return beside;
  return "";
}

Fp8Weight::Fp8Weight(const SafetensorsFile& file, const StoredTensor& codes, const SafetensorsFile& scales_file,
                     const StoredTensor& scales, Fp8Block block)
    : file_(&file), scales_file_(&scales_file), codes_(&codes), scales_(&scales), as_bf16_(codes), block_(block) {
  const auto fail = [&](const std::string& what) {
    return tensor_error(scales_file.path(), codes.name, "the scales '", scales.name, "' of the FP8 weight '",
                        codes.name, "' ", shape_string(codes.shape), " ", what);
  };
  as_bf16_.dtype = safetensors_name(DType::bf16);
  as_bf16_.bytes = 2 * codes.bytes;
  const std::optional<DType> dtype = parse_safetensors_dtype(scales.dtype);
  if (scales.dtype != kE8m0 && (!dtype || !is_float(*dtype)))
    throw fail(cat("are stored as ", scales.dtype, "; F32, F16, BF16 and F8_E8M0 are read"));
  if (codes.shape.size() < 2) throw fail("do not belong to a matrix");
  rows_ = codes.shape[codes.shape.size() - 2];
  cols_ = codes.shape.back();
  if (std::all_of(scales.shape.begin(), scales.shape.end(), [](int64_t size) { return size == 1; })) {
    block_ = {static_cast<int64_t>(codes.bytes) / std::max<int64_t>(cols_, 1), cols_};
    rows_ = block_.rows;  // of all matrices
    return;
  }
  std::vector<int64_t> expected = codes.shape;
  expected.back() = 1;
  const bool is_by_row = scales.shape == expected || scales.shape == std::vector(expected.begin(), expected.end() - 1);
  if (is_by_row && block.rows == 0) {
    block_ = {1, cols_};
    return;
  }
  if (block.rows <= 0 || block.cols <= 0)
    throw fail(cat("have shape ", shape_string(scales.shape), ", for which config.json has no weight_block_size"));
  expected.back() = pieces_of(cols_, block.cols);
  expected[expected.size() - 2] = pieces_of(rows_, block.rows);
  if (scales.shape != expected) {
    throw fail(cat("have shape ", shape_string(scales.shape), ", but weight_block_size [", block.rows, ", ", block.cols,
                   "] of config.json implies ", shape_string(expected)));
  }
}

size_t Fp8Weight::read(size_t first, size_t count, uint16_t* to) const {
  if (count == 0) return 0;
  const auto begin = static_cast<int64_t>(first), end = static_cast<int64_t>(first + count);
  // The row of scales for a row, both counted across all matrices.
  const auto scale_row = [&](int64_t row) {
    return row / rows_ * pieces_of(rows_, block_.rows) + row % rows_ / block_.rows;
  };
  const int64_t scale_cols = pieces_of(cols_, block_.cols);
  const int64_t first_scale = scale_row(begin / cols_) * scale_cols;
  const int64_t scale_count = (scale_row((end - 1) / cols_) + 1) * scale_cols - first_scale;
  const size_t scale_size = scale_bytes(*scales_);
  std::vector<std::byte> scales(static_cast<size_t>(scale_count) * scale_size);
  scales_file_->read(*scales_, static_cast<size_t>(first_scale) * scale_size, scales.size(), scales.data());

  auto* codes = reinterpret_cast<uint8_t*>(to) + count;
  file_->read(*codes_, first, count, codes);
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / cols_, col = at % cols_;
    const int64_t size = std::min({end - at, cols_ - col, block_.cols - col % block_.cols});
    const float scale =
        to_float(scales.data(), *scales_, scale_row(row) * scale_cols + col / block_.cols - first_scale);
    dequantize(codes + (at - begin), size, scale, to + (at - begin));
    at += size;
  }
  return count + scales.size();
}

}  // namespace gptq
