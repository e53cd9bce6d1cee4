// GPTQ folders, both versions: X.qweight I32 [in * bits / 32, out], X.qzeros I32 [groups, out * bits / 32], X.scales
// [groups, out], perhaps X.g_idx I32 [in]; they stand for X.weight [out, in]. format/gptq.cpp reads the codes as they
// are.
#include <algorithm>
#include <memory>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/rounding.h"
#include "io/pack.h"
#include "io/source_format.h"
#include "io/sources/integer_rows.h"

namespace gptq {
namespace {

class GptqRows final : public IntegerRows {
 public:
  struct Parts {
    FileTensor qweight, qzeros, scales, g_idx;  // g_idx: without a file if there is none
  };
  GptqRows(const Parts& parts, const std::string& module, int bits, int zero_offset, bool transposed)
      : IntegerRows(parts.qweight, module + ".weight", {parts.qweight.shape()[1], parts.qweight.shape()[0] * 32 / bits},
                    parts.scales, parts.scales.shape()[0], transposed),
        parts_(parts),
        bits_(bits),
        zero_offset_(zero_offset) {}

 private:
  // Columns [first, first + count) of a stored matrix of words with `width` columns.
  template <typename Word>
  static std::vector<Word> columns(const FileTensor& tensor, int64_t rows, int64_t width, int64_t first,
                                   int64_t count) {
    std::vector<Word> words(static_cast<size_t>(rows * count));
    for (int64_t r = 0; r < rows; ++r) {
      tensor.read(static_cast<size_t>(r * width + first) * sizeof(Word), static_cast<size_t>(count) * sizeof(Word),
                  &words[static_cast<size_t>(r * count)]);
    }
    return words;
  }

  IntegerTile read_tile(int64_t first, int64_t count) const override {
    IntegerTile tile;
    const auto words = columns<uint32_t>(parts_.qweight, cols() * bits_ / 32, rows(), first, count);
    ThreadPool pool(1);
    const std::vector<uint8_t> codes = unpack_streams(words, cols(), count, bits_, pool);
    tile.codes.assign(codes.begin(), codes.end());
    // Zeros of whole words.
    const int64_t from = first / 32 * 32, to = std::min(rows(), rounded_up(first + count, 32)), width = to - from;
    const auto zero_words =
        columns<uint32_t>(parts_.qzeros, groups(), rows() * bits_ / 32, from * bits_ / 32, width * bits_ / 32);
    const std::vector<uint8_t> zeros = unpack_cols(zero_words, groups(), width, bits_);
    const int mask = (1 << bits_) - 1;
    tile.zeros.reserve(static_cast<size_t>(count * groups()));
    tile.scales = scales_of_columns(first, count);
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t g = 0; g < groups(); ++g) {
        const uint8_t zero = zeros[static_cast<size_t>(g * width + first - from + r)];
        tile.zeros.push_back(static_cast<int16_t>((zero + zero_offset_) & mask));
      }
    }
    if (parts_.g_idx.file != nullptr) {
      tile.g_idx.resize(static_cast<size_t>(cols()));
      parts_.g_idx.read(0, tile.g_idx.size() * sizeof(int32_t), tile.g_idx.data());
    } else {
      tile.g_idx = groups_in_order(cols(), groups());
    }
    tile.bytes_read = 4 * (words.size() + zero_words.size()) + tile.scales.size() * float_bytes(scales());
    return tile;
  }

  Parts parts_;
  int bits_, zero_offset_;
};

bool reads(const QuantizationEntry& entry) { return entry.method() == "gptq"; }

// Version 1 stores zeros less one.
int zero_offset_of(const QuantizationEntry& entry, const FolderTensors& tensors) {
  const std::string format = checkpoint_format_of(entry.config);
  if (format.empty() || format == "gptq") return 1;
  if (format == "gptq_v2") return 0;
  throw UnsupportedError(
      cat(tensors.folder().string(), ": checkpoint_format '", format, "' is not read; gptq and gptq_v2 are"));
}

void decode(const QuantizationEntry& entry, FolderTensors& tensors, bool transposed) {
  const int zero_offset = zero_offset_of(entry, tensors);
  for (const std::string& module : modules_with(tensors, ".qweight")) {
    GptqRows::Parts parts{.qweight = tensors.at(module + ".qweight").stored,
                          .qzeros = part_of(tensors, module, module + ".qzeros"),
                          .scales = part_of(tensors, module, module + ".scales"),
                          .g_idx = {}};
    if (const auto* place = tensors.find(module + ".g_idx")) parts.g_idx = place->stored;
    const std::vector<int64_t>&words = parts.qweight.shape(), &grid = parts.scales.shape(),
          &zeros = parts.qzeros.shape();
    const bool are_matrices = words.size() == 2 && grid.size() == 2 && zeros.size() == 2 && words[0] > 0 &&
                              words[1] > 0 && grid[0] > 0 && grid[1] == words[1] && zeros[0] == grid[0];
    // Modules may differ in bits: the zeros say which.
    const int64_t bits = are_matrices ? zeros[1] * 32 / words[1] : 0;
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
      throw tensor_error(tensors.folder(), module, "'", module, ".qweight' ", shape_string(words), ", qzeros ",
                         shape_string(zeros), " and scales ", shape_string(grid),
                         " are no packing of 2, 3, 4 or 8 bits into whole words");
    }
    const int64_t in = words[0] * 32 / bits, out = words[1];
    if (in * bits % 32 != 0) {
      throw tensor_error(tensors.folder(), module, "'", module, ".qweight' ", shape_string(words), " is no packing of ",
                         bits, " bits into whole words, which its qzeros ", shape_string(zeros), " imply");
    }
    expect(tensors, parts.qweight, "I32", {in * bits / 32, out});
    expect(tensors, parts.qzeros, "I32", {grid[0], out * bits / 32});
    expect_dtype(tensors, parts.scales, {"F16", "BF16", "F32"});
    if (parts.g_idx.file != nullptr) expect(tensors, parts.g_idx, "I32", {in});
    tensors.put(std::make_unique<GptqRows>(parts, module, static_cast<int>(bits), zero_offset, transposed),
                {module + ".qzeros", module + ".scales", module + ".g_idx"});
  }
}

}  // namespace

const SourceFormat& gptq_source() {
  static const SourceFormat format{.name = "GPTQ", .on_request = true, .reads = reads, .decode = decode};
  return format;
}

}  // namespace gptq
