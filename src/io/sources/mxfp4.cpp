// MXFP4 as gpt-oss is released: the experts of a block in X_blocks U8 [experts, rows, groups, 16] and X_scales U8
// [experts, rows, groups], powers of two; they stand for X [experts, groups * 32, rows]. Layout:
// transformers/integrations/mxfp4.py.
#include <memory>

#include "base/error.h"
#include "io/source_format.h"
#include "io/sources/fp4.h"

namespace gptq {
namespace {

bool reads(const QuantizationEntry& entry) { return entry.method() == "mxfp4"; }

void decode(const QuantizationEntry& /*entry*/, FolderTensors& tensors, bool /*transposed*/) {
  for (const std::string& name : modules_with(tensors, "_blocks")) {
    const FileTensor blocks = tensors.at(name + "_blocks").stored;
    const std::vector<int64_t>& shape = blocks.shape();
    const bool fits = blocks.tensor->dtype == "U8" && shape.size() == 4 && shape[3] == kMxfp4Group / 2;
    if (!fits || blocks.tensor->bytes == 0) {
      throw tensor_error(tensors.folder(), blocks.tensor->name, "tensor '", blocks.tensor->name, "' is ",
                         blocks.tensor->dtype, " ", shape_string(shape),
                         ", where MXFP4 has U8 [experts, rows, groups, 16]");
    }
    const FileTensor scales = part_of(tensors, name, name + "_scales");
    expect(tensors, scales, "U8", {shape[0], shape[1], shape[2]});
    tensors.put(std::make_unique<Fp4Rows>(blocks, name, std::vector{shape[0], shape[1], shape[2] * kMxfp4Group}, scales,
                                          kMxfp4Group, true),
                {scales.tensor->name});
  }
}

}  // namespace

const SourceFormat& mxfp4_source() {
  static const SourceFormat format{.name = "MXFP4", .reads = reads, .decode = decode};
  return format;
}

}  // namespace gptq
