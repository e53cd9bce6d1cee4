// The formats of the compressed-tensors library (llm-compressor, vLLM), as it stores a linear X:
//   8-bit floats: X.weight F8_E4M3 with X.weight_scale (sources/fp8.h);
//   pack-quantized: X.weight_packed I32 [out, ceil(in * bits / 32)], a dense stream a row, X.weight_scale [out,
//   groups], X.weight_shape,
//     perhaps X.weight_zero_point and X.weight_g_idx; codes and zeros are stored plus 2^(bits - 1);
//   int-quantized: X.weight I8 [out, in] with X.weight_scale [out, groups], perhaps X.weight_zero_point;
//   mxfp4-pack-quantized: X.weight_packed U8 [out, in / 2], X.weight_scale U8 [out, in / 32], powers of two;
//   nvfp4-pack-quantized: the same with X.weight_scale F8_E4M3 [out, in / 16], over X.weight_global_scale.
// The quantization of activations, if there is any, is left out.
#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/rounding.h"
#include "io/source_format.h"
#include "io/sources/fp4.h"
#include "io/sources/fp8.h"
#include "io/sources/integer_rows.h"

namespace gptq {
namespace {

constexpr const char* kMethod = "compressed-tensors";

// What else belongs to a linear and says nothing of its weight.
const std::vector<std::string>& activation_parts() {
  static const std::vector<std::string> parts = {".input_scale", ".input_zero_point", ".input_global_scale",
                                                 ".output_scale", ".output_zero_point"};
  return parts;
}

std::vector<std::string> parts_to_hide(const std::string& module, const std::vector<std::string>& own) {
  std::vector<std::string> names;
  for (const std::string& part : own) names.push_back(module + part);
  for (const std::string& part : activation_parts()) names.push_back(module + part);
  return names;
}

// [rows, groups], or [rows] or a single one; nothing for another shape.
std::optional<int64_t> groups_of(const std::vector<int64_t>& shape, int64_t rows, int64_t cols) {
  const bool is_single = std::all_of(shape.begin(), shape.end(), [](int64_t size) { return size == 1; });
  if (is_single || (shape.size() == 1 && shape[0] == rows)) return 1;
  if (shape.size() != 2 || shape[0] != rows || shape[1] < 1 || cols % shape[1] != 0) return std::nullopt;
  return shape[1];
}

// The grid of rows that lie side by side: scales and zeros of [rows, groups].
class RowMajorIntegers : public IntegerRows {
 protected:
  struct Grid {
    FileTensor scales, zeros, g_idx;  // zeros, g_idx: without a file if there are none
    int64_t groups = 1;
    bool is_single = false;  // one scale for all rows
  };
  RowMajorIntegers(FileTensor codes, const std::string& module, int64_t out, int64_t in, const Grid& grid,
                   bool transposed)
      : IntegerRows(codes, module + ".weight", {out, in}, grid.scales, grid.groups, transposed), grid_(grid) {}

  const Grid& grid() const { return grid_; }
  // Scales and groups; zeros of 0.
  IntegerTile tile_of(int64_t first, int64_t count) const {
    IntegerTile tile;
    const auto size = static_cast<size_t>(count * groups());
    if (grid_.is_single) {
      tile.scales.assign(size, read_floats(scales(), 0, 1)[0]);
    } else {
      tile.scales = read_floats(scales(), static_cast<size_t>(first * groups()), size);
    }
    tile.zeros.resize(size);
    tile.g_idx = groups_in_order(cols(), groups());
    if (grid_.g_idx.file != nullptr) {
      std::vector<int32_t> stored_order(tile.g_idx.size());
      grid_.g_idx.read(0, stored_order.size() * sizeof(int32_t), stored_order.data());
      const bool is_used = std::any_of(stored_order.begin(), stored_order.end(), [](int32_t g) { return g != -1; });
      if (is_used) tile.g_idx = std::move(stored_order);
    }
    tile.bytes_read = size * float_bytes(scales());
    return tile;
  }
  // Zeros I8 of [rows, groups].
  void add_plain_zeros(int64_t first, int64_t count, IntegerTile& tile) const {
    const bool is_single = grid_.zeros.tensor->bytes == 1;
    std::vector<int8_t> zeros(is_single ? 1 : static_cast<size_t>(count * groups()));
    grid_.zeros.read(is_single ? 0 : static_cast<size_t>(first * groups()), zeros.size(), zeros.data());
    for (size_t i = 0; i < tile.zeros.size(); ++i) tile.zeros[i] = zeros[is_single ? 0 : i];
    tile.bytes_read += zeros.size();
  }

 private:
  Grid grid_;
};

class PackedRows final : public RowMajorIntegers {
 public:
  PackedRows(FileTensor packed, const std::string& module, int64_t out, int64_t in, int bits, const Grid& grid,
             bool transposed)
      : RowMajorIntegers(packed, module, out, in, grid, transposed), bits_(bits) {}
  using RowMajorIntegers::Grid;

 private:
  // The code at bit `bit` of a stream of words that lie `stride` apart; it may straddle two of them.
  int16_t code_at(const uint32_t* words, int64_t stride, int64_t bit) const {
    const int64_t word = bit / 32, shift = bit % 32;
    uint64_t code = words[word * stride];
    if (shift + bits_ > 32) code |= static_cast<uint64_t>(words[(word + 1) * stride]) << 32U;
    return static_cast<int16_t>(static_cast<int>(code >> shift & ((1U << bits_) - 1)) - (1 << (bits_ - 1)));
  }

  // Packed down the rows: [rows * bits / 32, groups].
  void add_packed_zeros(int64_t first, int64_t count, IntegerTile& tile) const {
    const int64_t from = first * bits_ / 32, lines = pieces_of((first + count) * bits_, 32) - from;
    std::vector<uint32_t> words(static_cast<size_t>(lines * groups()));
    grid().zeros.read(static_cast<size_t>(from * groups()) * 4, words.size() * 4, words.data());
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t g = 0; g < groups(); ++g)
        tile.zeros[static_cast<size_t>(r * groups() + g)] =
            code_at(&words[static_cast<size_t>(g)], groups(), (first + r) * bits_ - from * 32);
    }
    tile.bytes_read += words.size() * 4;
  }

  IntegerTile read_tile(int64_t first, int64_t count) const override {
    IntegerTile tile = tile_of(first, count);
    const int64_t width = stored().shape()[1];
    std::vector<uint32_t> words(static_cast<size_t>(count * width));
    stored().read(static_cast<size_t>(first * width) * 4, words.size() * 4, words.data());
    tile.codes.reserve(static_cast<size_t>(count * cols()));
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t k = 0; k < cols(); ++k)
        tile.codes.push_back(code_at(&words[static_cast<size_t>(r * width)], 1, k * bits_));
    }
    tile.bytes_read += words.size() * 4;
    if (grid().zeros.file != nullptr)
      grid().zeros.tensor->dtype == "I8" ? add_plain_zeros(first, count, tile) : add_packed_zeros(first, count, tile);
    return tile;
  }

  int bits_;
};

class PlainIntegers final : public RowMajorIntegers {
 public:
  PlainIntegers(FileTensor codes, const std::string& module, const Grid& grid, bool transposed)
      : RowMajorIntegers(codes, module, codes.shape()[0], codes.shape()[1], grid, transposed) {}
  using RowMajorIntegers::Grid;

 private:
  IntegerTile read_tile(int64_t first, int64_t count) const override {
    IntegerTile tile = tile_of(first, count);
    std::vector<int8_t> codes(static_cast<size_t>(count * cols()));
    stored().read(static_cast<size_t>(first * cols()), codes.size(), codes.data());
    tile.codes.assign(codes.begin(), codes.end());
    tile.bytes_read += codes.size();
    if (grid().zeros.file != nullptr) add_plain_zeros(first, count, tile);
    return tile;
  }
};

PackedRows::Grid grid_of(const FolderTensors& tensors, const std::string& module, int64_t out, int64_t in, int bits) {
  PackedRows::Grid grid{.scales = part_of(tensors, module, module + ".weight_scale"), .zeros = {}, .g_idx = {}};
  expect_dtype(tensors, grid.scales, {"F16", "BF16", "F32"});
  const std::vector<int64_t>& shape = grid.scales.shape();
  const std::optional<int64_t> groups = groups_of(shape, out, in);
  if (!groups) {
    throw tensor_error(tensors.folder(), module, "tensor '", module, ".weight_scale' is ", shape_string(shape),
                       ", which cuts a weight ", shape_string({out, in}), " into no equal groups");
  }
  grid.groups = *groups;
  grid.is_single = grid.scales.tensor->bytes == float_bytes(grid.scales);
  if (const auto* place = tensors.find(module + ".weight_zero_point")) {
    grid.zeros = place->stored;
    if (grid.zeros.tensor->dtype != "I8")
      expect(tensors, grid.zeros, "I32", {pieces_of(out * bits, 32), grid.groups});
    else if (grid.zeros.tensor->bytes != 1 && groups_of(grid.zeros.shape(), out, in) != groups)
      expect(tensors, grid.zeros, "I8", {out, grid.groups});
  }
  if (const auto* place = tensors.find(module + ".weight_g_idx")) {
    grid.g_idx = place->stored;
    expect(tensors, grid.g_idx, "I32", {in});
  }
  return grid;
}

void decode_packed(FolderTensors& tensors, const std::string& module, bool transposed) {
  const FileTensor packed = tensors.at(module + ".weight_packed").stored;
  expect_dtype(tensors, packed, {"I32"});
  const FileTensor size = part_of(tensors, module, module + ".weight_shape");
  expect_dtype(tensors, size, {"I64", "I32"});
  const bool is_wide = size.tensor->dtype == "I64";
  expect(tensors, size, size.tensor->dtype, {2});
  int64_t wide[2] = {};
  int32_t narrow[2] = {};
  is_wide ? size.read(0, sizeof wide, wide) : size.read(0, sizeof narrow, narrow);
  const int64_t out = is_wide ? wide[0] : narrow[0], in = is_wide ? wide[1] : narrow[1];
  const std::vector<int64_t>& words = packed.shape();
  constexpr int64_t kMost = int64_t{1} << 40;
  int bits = 0;
  if (words.size() == 2 && out > 0 && words[0] == out && in > 0 && in < kMost) {
    for (const int width : {7, 6, 5, 3, 2, 8, 4}) {  // the last one that fits: small weights may fit several
      if (pieces_of(in * width, 32) == words[1]) bits = width;
    }
  }
  if (bits == 0) {
    throw tensor_error(tensors.folder(), module, "tensor '", module, ".weight_packed' ", shape_string(words),
                       " is no dense packing of 2 to 8 bits of the weight ", shape_string({out, in}),
                       " that its weight_shape says");
  }
  tensors.put(
      std::make_unique<PackedRows>(packed, module, out, in, bits, grid_of(tensors, module, out, in, bits), transposed),
      parts_to_hide(module, {".weight_scale", ".weight_shape", ".weight_zero_point", ".weight_g_idx"}));
}

void decode_fp4(FolderTensors& tensors, const std::string& module, bool transposed) {
  const FileTensor packed = tensors.at(module + ".weight_packed").stored,
                   scales = part_of(tensors, module, module + ".weight_scale");
  const std::vector<int64_t>& bytes = packed.shape();
  const bool has_global = scales.tensor->dtype == "F8_E4M3";
  const int64_t group = has_global ? kNvfp4Group : kMxfp4Group;
  const bool fits = bytes.size() == 2 && bytes[0] > 0 && bytes[1] > 0 && bytes[1] * 2 % group == 0;
  if (!fits) {
    throw tensor_error(tensors.folder(), module, "tensor '", packed.tensor->name, "' is U8 ", shape_string(bytes),
                       ", where 4-bit floats have [out, in / 2] with whole groups of ", group, " inputs");
  }
  expect_dtype(tensors, scales, {"U8", "F8_E8M0", "F8_E4M3"});
  expect(tensors, scales, scales.tensor->dtype, {bytes[0], bytes[1] * 2 / group});
  float over = 1;
  if (has_global) {
    const FileTensor global = part_of(tensors, module, module + ".weight_global_scale");
    expect_dtype(tensors, global, {"F32"});
    if (global.tensor->bytes != sizeof(float)) expect(tensors, global, "F32", {1});
    over = read_floats(global, 0, 1)[0];
  }
  tensors.put(std::make_unique<Fp4Rows>(packed, module + ".weight", std::vector{bytes[0], bytes[1] * 2}, scales, group,
                                        transposed, 1.0F, over),
              parts_to_hide(module, {".weight_scale", ".weight_global_scale"}));
}

void decode_integers(FolderTensors& tensors, const std::string& module, bool transposed) {
  const FileTensor codes = tensors.at(module + ".weight").stored;
  const std::vector<int64_t>& shape = codes.shape();
  if (shape.size() != 2 || codes.tensor->bytes == 0) expect(tensors, codes, "I8", {1, 1});
  tensors.put(
      std::make_unique<PlainIntegers>(codes, module, grid_of(tensors, module, shape[0], shape[1], 8), transposed),
      parts_to_hide(module, {".weight_scale", ".weight_zero_point", ".weight_g_idx"}));
}

// The groups' weights that are 8-bit floats; all: whether none are of another kind.
std::vector<const Json*> float_weights(const Json& config, bool& all) {
  std::vector<const Json*> floats;
  const auto groups = config.find("config_groups");
  all = groups != config.end() && groups->is_object() && !groups->empty();
  if (!all) return floats;
  for (const Json& group : *groups) {
    const auto weights = group.is_object() ? group.find("weights") : group.end();
    const bool is_float = group.is_object() && weights != group.end() && weights->is_object() &&
                          string_in(*weights, "type") == "float" && weights->value("num_bits", Json()) == 8;
    if (is_float)
      floats.push_back(&*weights);
    else
      all = false;
  }
  return floats;
}

Fp8Block block_of(const std::vector<const Json*>& weights, const FolderTensors& tensors) {
  if (weights.empty()) return {};
  const Json& first = *weights.front();
  const Json group = first.value("group_size", Json());
  if (string_in(first, "strategy") == "group" && group.is_number_integer())
    return fp8_block(Json::array({1, group}), "group_size", tensors);
  return fp8_block(first.value("block_structure", Json()), "block_structure", tensors);
}

bool says(const Json& config, const char* key) {
  const auto found = config.find(key);
  return found != config.end() && !found->is_null() && !found->empty();
}

bool reads_floats(const QuantizationEntry& entry) {
  bool all = false;
  return entry.method() == kMethod && !float_weights(entry.config, all).empty() && all;
}

void decode_floats(const QuantizationEntry& entry, FolderTensors& tensors, bool /*transposed*/) {
  bool all = false;
  decode_fp8(tensors, block_of(float_weights(entry.config, all), tensors));
}

bool reads(const QuantizationEntry& entry) { return entry.method() == kMethod; }

void decode(const QuantizationEntry& entry, FolderTensors& tensors, bool transposed) {
  const std::string where = tensors.folder().string();
  if (says(entry.config, "transform_config")) {
    throw UnsupportedError(
        cat(where, ": ", kMethod, " with a transform_config is not read: it changes more than the weights"));
  }
  const auto sparsity = entry.config.find("sparsity_config");
  if (sparsity != entry.config.end() && sparsity->is_object() && !sparsity->empty() &&
      string_in(*sparsity, "format") != "dense")
    throw UnsupportedError(cat(where, ": ", kMethod, " with a sparsity_config is not read; dense weights are"));
  for (const std::string& module : modules_with(tensors, ".weight_packed"))
    tensors.at(module + ".weight_packed").stored.tensor->dtype == "U8" ? decode_fp4(tensors, module, transposed)
                                                                       : decode_packed(tensors, module, transposed);
  for (const std::string& module : modules_with(tensors, ".weight")) {
    if (tensors.at(module + ".weight").stored.tensor->dtype == "I8") decode_integers(tensors, module, transposed);
  }
  bool all = false;
  decode_fp8(tensors, block_of(float_weights(entry.config, all), tensors));
}

}  // namespace

const SourceFormat& compressed_floats_source() {
  static const SourceFormat format{.name = "8-bit floats", .reads = reads_floats, .decode = decode_floats};
  return format;
}

const SourceFormat& compressed_tensors_source() {
  static const SourceFormat format{.name = kMethod, .on_request = true, .reads = reads, .decode = decode};
  return format;
}

}  // namespace gptq
