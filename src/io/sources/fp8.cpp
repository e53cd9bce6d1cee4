#include "io/sources/fp8.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/rounding.h"
#include "io/json_numbers.h"
#include "io/small_floats.h"
#include "io/source_format.h"

namespace gptq {
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

}  // namespace

Fp8Weight::Fp8Weight(FileTensor codes, FileTensor scales, Fp8Block block)
    : DecodedWeight(codes, codes.tensor->name, codes.shape(), DType::bf16), scales_(scales), block_(block) {
  const std::vector<int64_t>&shape = codes.shape(), &scales_shape = scales.shape();
  const auto fail = [&](const std::string& what) {
    return tensor_error(scales.file->path(), codes.tensor->name, "the scales '", scales.tensor->name,
                        "' of the FP8 weight '", codes.tensor->name, "' ", shape_string(shape), " ", what);
  };
  const std::string& dtype = scales.tensor->dtype;
  if (dtype != "F32" && dtype != "F16" && dtype != "BF16" && dtype != "F8_E8M0" && dtype != "U8")
    throw fail(cat("are stored as ", dtype, "; F32, F16, BF16 and F8_E8M0 are read"));
  if (shape.size() < 2) throw fail("do not belong to a matrix");
  rows_ = shape[shape.size() - 2];
  cols_ = shape.back();
  if (std::all_of(scales_shape.begin(), scales_shape.end(), [](int64_t size) { return size == 1; })) {
    block_ = {static_cast<int64_t>(codes.tensor->bytes) / std::max<int64_t>(cols_, 1), cols_};
    rows_ = block_.rows;  // of all matrices
    return;
  }
  std::vector<int64_t> expected = shape;
  expected.back() = 1;
  const bool is_by_row = scales_shape == expected || scales_shape == std::vector(expected.begin(), expected.end() - 1);
  if (is_by_row && block.rows == 0) {
    block_ = {1, cols_};
    return;
  }
  if (block.rows <= 0 || block.cols <= 0)
    throw fail(cat("have shape ", shape_string(scales_shape), ", for which config.json has no weight_block_size"));
  expected.back() = pieces_of(cols_, block.cols);
  expected[expected.size() - 2] = pieces_of(rows_, block.rows);
  if (scales_shape != expected) {
    throw fail(cat("have shape ", shape_string(scales_shape), ", but weight_block_size [", block.rows, ", ", block.cols,
                   "] of config.json implies ", shape_string(expected)));
  }
}

size_t Fp8Weight::read(size_t first, size_t count, void* to) const {
  if (count == 0) return 0;
  const auto begin = static_cast<int64_t>(first), end = static_cast<int64_t>(first + count);
  // The row of scales for a row, both counted across all matrices.
  const auto scale_row = [&](int64_t row) {
    return row / rows_ * pieces_of(rows_, block_.rows) + row % rows_ / block_.rows;
  };
  const int64_t scale_cols = pieces_of(cols_, block_.cols);
  const int64_t first_scale = scale_row(begin / cols_) * scale_cols;
  const int64_t scale_count = (scale_row((end - 1) / cols_) + 1) * scale_cols - first_scale;
  const std::vector<float> scales =
      read_floats(scales_, static_cast<size_t>(first_scale), static_cast<size_t>(scale_count));

  auto* codes = static_cast<uint8_t*>(to) + count;
  stored().read(first, count, codes);
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / cols_, col = at % cols_;
    const int64_t size = std::min({end - at, cols_ - col, block_.cols - col % block_.cols});
    const int64_t scale = scale_row(row) * scale_cols + col / block_.cols - first_scale;
    dequantize(codes + (at - begin), size, scales[static_cast<size_t>(scale)],
               static_cast<uint16_t*>(to) + (at - begin));
    at += size;
  }
  return count + scales.size() * float_bytes(scales_);
}

namespace {

// The tensor with the scales of a weight: X.weight_scale_inv, X.weight_scale or X.scale; empty if there is none.
std::string scales_name(const FolderTensors& tensors, const std::string& weight) {
  for (const char* suffix : {"_scale_inv", "_scale"}) {
    if (tensors.find(weight + suffix) != nullptr) return weight + suffix;
  }
  const std::string beside = weight.substr(0, weight.rfind('.')) + ".scale";
  return weight.ends_with(".weight") && tensors.find(beside) != nullptr ? beside : "";
}

bool reads(const QuantizationEntry& entry) {
  const std::string method = entry.method();
  return method == "fp8" || method == "fbgemm_fp8" ||
         (method == "modelopt" && word_in(entry.config, "quant_algo").starts_with("fp8"));
}

void decode(const QuantizationEntry& entry, FolderTensors& tensors, bool /*transposed*/) {
  if (const auto format = entry.config.find("fmt"); format != entry.config.end() && *format != "e4m3") {
    throw UnsupportedError(cat(tensors.folder().string(), ": its quantization_config says fmt ", shown(*format),
                               "; FP8 weights in e4m3 are read"));
  }
  decode_fp8(tensors, fp8_block(entry.config.value("weight_block_size", Json()), "weight_block_size", tensors));
}

}  // namespace

Fp8Block fp8_block(const Json& size, std::string_view key, const FolderTensors& tensors) {
  if (size.is_null()) return {};
  constexpr int64_t kMost = int64_t{1} << 24;
  const auto fits = [](const Json& value) { return is_whole(value, 1, kMost); };
  if (!size.is_array() || size.size() != 2 || !std::all_of(size.begin(), size.end(), fits)) {
    throw file_error(tensors.folder(), "its quantization_config says ", key, " ", shown(size),
                     "; two positive numbers up to ", kMost, " are needed");
  }
  return {size[0], size[1]};
}

void decode_fp8(FolderTensors& tensors, Fp8Block block) {
  for (const StoredTensor* tensor : tensors.all()) {
    if (tensor->dtype != "F8_E4M3") continue;
    const FileTensor codes = tensors.at(tensor->name).stored;
    const std::string name = tensor->name, scales = scales_name(tensors, name);
    if (scales.empty()) {
      throw tensor_error(codes.file->path(), name, "the FP8 weight '", name, "' has no scales '", name,
                         "_scale_inv' or '", name, "_scale': the download is not complete");
    }
    const std::string module = name.substr(0, name.rfind('.'));
    tensors.put(std::make_unique<Fp8Weight>(codes, tensors.at(scales).stored, block),
                {scales, module + ".input_scale", module + ".input_scale_ub", module + ".activation_scale"});
  }
}

const SourceFormat& fp8_source() {
  static const SourceFormat format{.name = "FP8", .reads = reads, .decode = decode};
  return format;
}

}  // namespace gptq
