// AWQ folders in AutoAWQ's gemm layout, of 4 bits: X.qweight I32 [in, out / 8], X.qzeros I32 [groups, out / 8],
// X.scales [groups, out]; they stand for X.weight [out, in]. The eight codes of a word are those of eight neighbouring
// outputs in the order kOrder. Layout: awq/utils/packing_utils.py.
#include <algorithm>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/rounding.h"
#include "io/source_format.h"
#include "io/sources/integer_rows.h"

namespace gptq {
namespace {

constexpr int64_t kCodes = 8;                             // of a word
constexpr int kOrder[kCodes] = {0, 2, 4, 6, 1, 3, 5, 7};  // the output of each code, lowest bits first

class AwqRows final : public IntegerRows {
 public:
  AwqRows(FileTensor qweight, FileTensor qzeros, FileTensor scales, const std::string& module, bool transposed)
      : IntegerRows(qweight, module + ".weight", {qweight.shape()[1] * kCodes, qweight.shape()[0]}, scales,
                    scales.shape()[0], transposed),
        qzeros_(qzeros) {}

 private:
  // Outputs [first, first + count) of a matrix of words [lines, rows / 8], as [count, lines].
  std::vector<int16_t> outputs(const FileTensor& tensor, int64_t lines, int64_t first, int64_t count) const {
    const int64_t from = first / kCodes, width = pieces_of(first + count, kCodes) - from;
    std::vector<int16_t> codes(static_cast<size_t>(count * lines));
    std::vector<uint32_t> words(static_cast<size_t>(width));
    for (int64_t line = 0; line < lines; ++line) {
      tensor.read(static_cast<size_t>(line * rows() / kCodes + from) * 4, words.size() * 4, words.data());
      for (int64_t i = 0; i < width * kCodes; ++i) {
        const int64_t row = (from + i / kCodes) * kCodes + kOrder[i % kCodes] - first;
        if (row < 0 || row >= count) continue;
        const uint32_t word = words[static_cast<size_t>(i / kCodes)];
        codes[static_cast<size_t>(row * lines + line)] = static_cast<int16_t>(word >> (4 * (i % kCodes)) & 0xfU);
      }
    }
    return codes;
  }

  IntegerTile read_tile(int64_t first, int64_t count) const override {
    IntegerTile tile;
    tile.codes = outputs(stored(), cols(), first, count);
    tile.zeros = outputs(qzeros_, groups(), first, count);
    tile.scales = scales_of_columns(first, count);
    tile.g_idx = groups_in_order(cols(), groups());
    tile.bytes_read = (tile.codes.size() + tile.zeros.size()) / 2 + tile.scales.size() * float_bytes(scales());
    return tile;
  }

  FileTensor qzeros_;
};

bool reads(const QuantizationEntry& entry) { return entry.method() == "awq"; }

void refuse_other_layouts(const QuantizationEntry& entry, const FolderTensors& tensors) {
  for (const std::string& layout : {word_in(entry.config, "version"), checkpoint_format_of(entry.config)}) {
    if (layout.empty() || layout == "gemm") continue;
    throw UnsupportedError(cat(tensors.folder().string(), ": the AWQ layout '", layout, "' is not read; gemm is"));
  }
}

void decode(const QuantizationEntry& entry, FolderTensors& tensors, bool transposed) {
  refuse_other_layouts(entry, tensors);
  for (const std::string& module : modules_with(tensors, ".qweight")) {
    const FileTensor qweight = tensors.at(module + ".qweight").stored,
                     qzeros = part_of(tensors, module, module + ".qzeros"),
                     scales = part_of(tensors, module, module + ".scales");
    const std::vector<int64_t>&words = qweight.shape(), &grid = scales.shape();
    const bool fits = words.size() == 2 && grid.size() == 2 && words[0] > 0 && words[1] > 0 && grid[0] > 0 &&
                      words[0] % grid[0] == 0 && grid[1] == words[1] * kCodes;
    if (!fits) {
      throw tensor_error(tensors.folder(), module, "'", module, ".qweight' ", shape_string(words), " and scales ",
                         shape_string(grid), " are no AWQ packing of 4 bits, [in, out / 8] and [groups, out]");
    }
    expect(tensors, qweight, "I32", {words[0], words[1]});
    expect(tensors, qzeros, "I32", {grid[0], words[1]});
    expect_dtype(tensors, scales, {"F16", "BF16", "F32"});
    tensors.put(std::make_unique<AwqRows>(qweight, qzeros, scales, module, transposed),
                {module + ".qzeros", module + ".scales"});
  }
}

}  // namespace

const SourceFormat& awq_source() {
  static const SourceFormat format{.name = "AWQ", .on_request = true, .reads = reads, .decode = decode};
  return format;
}

}  // namespace gptq
