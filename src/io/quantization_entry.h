// What a model folder says of the quantization of its weights, in config.json or in a file beside it.
#pragma once

#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "io/fp8.h"
#include "io/json.h"

namespace gptq {

// `config` is null where nothing is quantized. Weights in FP8 are read like plain ones.
struct QuantizationEntry {
  Json config;
  bool is_fp8 = false;
  Fp8Block block;  // of FP8 scales; {0, 0} if the entry has none

  std::string method() const;  // quant_method, or what the entry implies without one
};

// The quantization_config of config.json, else quantize_config.json (GPTQ), else hf_quant_config.json (ModelOpt). An
// entry that neither names a method nor has what one needs quantizes nothing. FP8: quant_method fp8 and fbgemm_fp8,
// compressed-tensors with 8-bit floats, and ModelOpt's FP8. Throws InputError for an entry that is broken,
// UnsupportedError for FP8 of another kind than e4m3.
QuantizationEntry read_quantization_entry(const Json& config, const std::filesystem::path& folder);

// Whether a tensor belongs to a quantized weight: packed integers, FP8, or their scales.
bool is_of_quantized(const StoredTensor& tensor);

}  // namespace gptq
