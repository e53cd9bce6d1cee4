// bitsandbytes folders. 4 bits: X.weight U8 [n / 2, 1], two codes a byte, the first in the upper half, of a weight that
// X.weight.quant_state.bitsandbytes__nf4 (or __fp4) describes in JSON; value = X.weight.quant_map[code] * absmax of the
// code's block. X.weight.absmax is F32, or U8 with a map, scales and an offset of its own (nested). 8 bits: X.weight I8
// [out, in], value = code * X.SCB[row] / 127.
#include <memory>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/rounding.h"
#include "io/json_numbers.h"
#include "io/source_format.h"

namespace gptq {
namespace {

constexpr const char* kState = ".weight.quant_state.bitsandbytes__";
constexpr int64_t kMostState = 4096;  // bytes of a description

// Values of neighbouring places that share a scale.
struct Scales {
  FileTensor absmax;
  int64_t block = 0;
  std::vector<float> nested_map;  // 256 values, or none
  FileTensor nested_absmax;
  int64_t nested_block = 0;
  float offset = 0;

  std::vector<float> read(int64_t first, int64_t count) const {
    if (nested_map.empty()) return read_floats(absmax, static_cast<size_t>(first), static_cast<size_t>(count));
    std::vector<uint8_t> codes(static_cast<size_t>(count));
    absmax.read(static_cast<size_t>(first), codes.size(), codes.data());
    const int64_t from = first / nested_block, last = (first + count - 1) / nested_block;
    const std::vector<float> outer =
        read_floats(nested_absmax, static_cast<size_t>(from), static_cast<size_t>(last - from + 1));
    std::vector<float> values;
    for (int64_t i = 0; i < count; ++i) {
      const float code = nested_map[codes[static_cast<size_t>(i)]];
      values.push_back(code * outer[static_cast<size_t>((first + i) / nested_block - from)] + offset);
    }
    return values;
  }
};

class FourBitRows final : public DecodedRows {
 public:
  FourBitRows(FileTensor codes, std::string name, const std::vector<int64_t>& shape, DType dtype,
              std::vector<float> map, Scales scales, bool transposed)
      : DecodedRows(codes, std::move(name), shape, dtype, transposed),
        map_(std::move(map)),
        scales_(std::move(scales)) {}

 private:
  size_t decode(const Tile& tile, float* to) const override {
    const int64_t first = tile.row * cols(), end = first + tile.rows * cols();
    const int64_t first_block = first / scales_.block, blocks = pieces_of(end, scales_.block) - first_block;
    const std::vector<float> absmax = scales_.read(first_block, blocks);
    std::vector<uint8_t> bytes(static_cast<size_t>(pieces_of(end, 2) - first / 2));
    stored().read(static_cast<size_t>(first / 2), bytes.size(), bytes.data());
    for (int64_t i = first; i < end; ++i) {
      const uint8_t pair = bytes[static_cast<size_t>(i / 2 - first / 2)];
      *to++ =
          map_[i % 2 == 0 ? pair >> 4U : pair & 0xfU] * absmax[static_cast<size_t>(i / scales_.block - first_block)];
    }
    return bytes.size() + absmax.size() * float_bytes(scales_.absmax);
  }

  std::vector<float> map_;  // 16 values
  Scales scales_;
};

class EightBitRows final : public DecodedRows {
 public:
  EightBitRows(FileTensor codes, FileTensor scales, bool transposed)
      : DecodedRows(codes, codes.tensor->name, codes.shape(), DType::f16, transposed), scales_(scales) {}

 private:
  size_t decode(const Tile& tile, float* to) const override {
    std::vector<int8_t> codes(static_cast<size_t>(tile.rows * cols()));
    stored().read(static_cast<size_t>(tile.row * cols()), codes.size(), codes.data());
    const std::vector<float> scales =
        read_floats(scales_, static_cast<size_t>(tile.row), static_cast<size_t>(tile.rows));
    for (size_t i = 0; i < codes.size(); ++i)
      *to++ = static_cast<float>(codes[i]) * scales[i / static_cast<size_t>(cols())] / 127.0F;
    return codes.size() + scales.size() * sizeof(float);
  }

  FileTensor scales_;
};

Json read_state(const FolderTensors& tensors, const FileTensor& tensor) {
  const auto size = static_cast<int64_t>(tensor.tensor->bytes);
  if (tensor.tensor->dtype != "U8" || size > kMostState) expect(tensors, tensor, "U8", {std::min(size, kMostState)});
  std::string text(tensor.tensor->bytes, ' ');
  tensor.read(0, text.size(), text.data());
  Json state = parse_json<Json>(text, tensor.file->path());
  if (!state.is_object())
    throw tensor_error(tensors.folder(), tensor.tensor->name, tensor.tensor->name, " is no JSON object");
  return state;
}

int64_t size_in(const FolderTensors& tensors, const std::string& module, const Json& value, const char* key) {
  constexpr int64_t kMost = int64_t{1} << 40;
  if (is_whole(value, 1, kMost)) return value.get<int64_t>();
  throw tensor_error(tensors.folder(), module, "the quant_state of '", module, "' says ", key, " ", shown(value),
                     "; a positive whole number is needed");
}

std::vector<float> map_of(const FolderTensors& tensors, const std::string& module, const char* part, int64_t size) {
  const FileTensor map = part_of(tensors, module, module + part);
  expect(tensors, map, "F32", {size});
  return read_floats(map, 0, static_cast<size_t>(size));
}

Scales scales_of(const FolderTensors& tensors, const std::string& module, const Json& state, int64_t values) {
  Scales scales{.absmax = part_of(tensors, module, module + ".weight.absmax")};
  scales.block = size_in(tensors, module, state.value("blocksize", Json()), "blocksize");
  const int64_t blocks = pieces_of(values, scales.block);
  if (scales.absmax.tensor->dtype == "F32") {
    expect(tensors, scales.absmax, "F32", {blocks});
    return scales;
  }
  expect(tensors, scales.absmax, "U8", {blocks});
  scales.nested_map = map_of(tensors, module, ".weight.nested_quant_map", 256);
  scales.nested_block = size_in(tensors, module, state.value("nested_blocksize", Json()), "nested_blocksize");
  scales.nested_absmax = part_of(tensors, module, module + ".weight.nested_absmax");
  expect(tensors, scales.nested_absmax, "F32", {pieces_of(blocks, scales.nested_block)});
  const Json offset = state.value("nested_offset", Json(0));
  if (!offset.is_number()) {
    throw tensor_error(tensors.folder(), module, "the quant_state of '", module, "' says nested_offset ", shown(offset),
                       "; a number is needed");
  }
  scales.offset = offset.get<float>();
  return scales;
}

void decode_four_bits(FolderTensors& tensors, const std::string& state_name, bool transposed) {
  const std::string module = state_name.substr(0, state_name.find(kState)), weight = module + ".weight";
  const Json state = read_state(tensors, tensors.at(state_name).stored);
  const Json shape = state.value("shape", Json());
  if (!shape.is_array() || shape.size() != 2) {
    throw tensor_error(tensors.folder(), module, "the quant_state of '", module, "' says shape ", shown(shape),
                       "; two sizes are needed");
  }
  const int64_t out = size_in(tensors, module, shape[0], "shape"), in = size_in(tensors, module, shape[1], "shape");
  const FileTensor codes = part_of(tensors, weight, weight);
  const auto bytes = static_cast<int64_t>(codes.tensor->bytes);
  if (codes.tensor->dtype != "U8" || out > 2 * bytes / in || pieces_of(out * in, 2) != bytes) {
    throw tensor_error(tensors.folder(), weight, "tensor '", weight, "' is ", codes.tensor->dtype, " ",
                       shape_string(codes.shape()), ", where its quant_state says two codes a byte of ",
                       shape_string({out, in}));
  }
  const std::string name = string_in(state, "dtype");
  const DType dtype = name == "float16" ? DType::f16 : name == "float32" ? DType::f32 : DType::bf16;
  std::vector<std::string> parts = {state_name};
  for (const char* part : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"})
    parts.push_back(weight + part);
  tensors.put(std::make_unique<FourBitRows>(codes, weight, std::vector{out, in}, dtype,
                                            map_of(tensors, module, ".weight.quant_map", 16),
                                            scales_of(tensors, module, state, out * in), transposed),
              parts);
}

void decode_eight_bits(FolderTensors& tensors, const std::string& module, bool transposed) {
  const FileTensor codes = part_of(tensors, module, module + ".weight"), scales = tensors.at(module + ".SCB").stored;
  const std::vector<int64_t>& shape = codes.shape();
  if (codes.tensor->dtype != "I8" || shape.size() != 2 || codes.tensor->bytes == 0) {
    throw tensor_error(tensors.folder(), codes.tensor->name, "tensor '", codes.tensor->name, "' is ",
                       codes.tensor->dtype, " ", shape_string(shape),
                       ", where 8 bits of bitsandbytes are I8 [out, in]");
  }
  expect(tensors, scales, "F32", {shape[0]});
  tensors.put(std::make_unique<EightBitRows>(codes, scales, transposed),
              {scales.tensor->name, module + ".weight_format"});
}

bool reads(const QuantizationEntry& entry) { return entry.method() == "bitsandbytes"; }

void decode(const QuantizationEntry& /*entry*/, FolderTensors& tensors, bool transposed) {
  for (const StoredTensor* tensor : tensors.all()) {
    if (tensor->name.find(kState) != std::string::npos) decode_four_bits(tensors, tensor->name, transposed);
  }
  for (const std::string& module : modules_with(tensors, ".SCB")) decode_eight_bits(tensors, module, transposed);
}

}  // namespace

const SourceFormat& bitsandbytes_source() {
  static const SourceFormat format{.name = "bitsandbytes", .on_request = true, .reads = reads, .decode = decode};
  return format;
}

}  // namespace gptq
