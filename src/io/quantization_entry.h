// What a model folder says of the quantization of its weights, in config.json or in a file beside it.
#pragma once

#include <filesystem>
#include <string>

#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/safetensors.h"

namespace gptq {

// `config` is null where nothing is quantized.
struct QuantizationEntry {
  Json config;

  std::string method() const;  // quant_method, or what the entry implies without one
};

// The quantization_config of config.json, else quantize_config.json (GPTQ), else hf_quant_config.json (ModelOpt). An
// entry that neither names a method nor has what one needs quantizes nothing. Throws InputError for an entry that is
// broken.
QuantizationEntry read_quantization_entry(const Json& config, const std::filesystem::path& folder);

// What a quantization_config says of its format: checkpoint_format, else format; empty if it says nothing.
std::string checkpoint_format_of(const Json& config);

// The word under a key, in lower case; empty if there is none.
std::string word_in(const Json& object, const char* key);

// Whether a tensor belongs to a quantized weight: packed integers, FP8, or their scales.
bool is_of_quantized(const StoredTensor& tensor);

}  // namespace gptq
