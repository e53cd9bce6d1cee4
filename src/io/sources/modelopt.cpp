// ModelOpt's NVFP4: X.weight U8 [out, in / 2], X.weight_scale F8_E4M3 [out, in / 16], times X.weight_scale_2. Its FP8
// is read by sources/fp8.cpp.
#include <memory>

#include "base/error.h"
#include "io/source_format.h"
#include "io/sources/fp4.h"
#include "io/sources/fp8.h"

namespace gptq {
namespace {

bool reads(const QuantizationEntry& entry) {
  const std::string algorithm = word_in(entry.config, "quant_algo");
  return entry.method() == "modelopt" && (algorithm.starts_with("nvfp4") || algorithm == "mixed_precision");
}

void decode(const QuantizationEntry& /*entry*/, FolderTensors& tensors, bool transposed) {
  for (const std::string& module : modules_with(tensors, ".weight_scale_2")) {
    const FileTensor codes = part_of(tensors, module, module + ".weight"),
                     scales = part_of(tensors, module, module + ".weight_scale"),
                     second = tensors.at(module + ".weight_scale_2").stored;
    if (tensors.find(module + ".pre_quant_scale") != nullptr) {
      throw UnsupportedError(cat(tensors.folder().string(), ": '", module,
                                 ".pre_quant_scale' scales the inputs of a weight, which is not read"));
    }
    const std::vector<int64_t>& shape = codes.shape();
    const bool fits = shape.size() == 2 && shape[0] > 0 && shape[1] > 0 && shape[1] * 2 % kNvfp4Group == 0;
    if (codes.tensor->dtype != "U8" || !fits) {
      throw tensor_error(tensors.folder(), codes.tensor->name, "tensor '", codes.tensor->name, "' is ",
                         codes.tensor->dtype, " ", shape_string(shape),
                         ", where NVFP4 has U8 [out, in / 2] with whole groups of 16 inputs");
    }
    expect(tensors, scales, "F8_E4M3", {shape[0], shape[1] * 2 / kNvfp4Group});
    expect_dtype(tensors, second, {"F32"});
    if (second.tensor->bytes != sizeof(float)) expect(tensors, second, "F32", {1});
    tensors.put(std::make_unique<Fp4Rows>(codes, codes.tensor->name, std::vector{shape[0], shape[1] * 2}, scales,
                                          kNvfp4Group, transposed, read_floats(second, 0, 1)[0]),
                {scales.tensor->name, second.tensor->name, module + ".input_scale"});
  }
  decode_fp8(tensors, {});
}

}  // namespace

const SourceFormat& modelopt_source() {
  static const SourceFormat format{.name = "NVFP4", .on_request = true, .reads = reads, .decode = decode};
  return format;
}

}  // namespace gptq
