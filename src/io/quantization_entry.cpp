#include "io/quantization_entry.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string_view>

#include "base/error.h"
#include "io/checkpoint_files.h"
#include "io/file.h"
#include "io/json_numbers.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// The word under a key, in lower case; empty if there is none.
std::string word_of(const Json& object, const char* key) {
  std::string word = string_in(object, key);
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
  return word;
}

bool is_true(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && *found == true;
}

// Whether some key of an entry without a method says how weights are quantized.
bool says_how(const Json& config) {
  if (is_true(config, "load_in_4bit") || is_true(config, "load_in_8bit")) return true;
  return std::any_of(config.begin(), config.end(), [](const Json& value) { return value.is_number(); }) &&
         (config.contains("bits") || config.contains("w_bit") || config.contains("group_size"));
}

// Two sizes [rows, cols], or {0, 0} for null.
Fp8Block block_of(const Json& size, std::string_view key, const fs::path& folder) {
  if (size.is_null()) return {};
  constexpr int64_t kMost = int64_t{1} << 24;
  const auto fits = [](const Json& value) { return is_whole(value, 1, kMost); };
  if (!size.is_array() || size.size() != 2 || !std::all_of(size.begin(), size.end(), fits)) {
    throw file_error(folder, "its quantization_config says ", key, " ", size.dump(), "; two positive numbers up to ",
                     kMost, " are needed");
  }
  return {size[0], size[1]};
}

// The first of a compressed-tensors config's groups that has 8-bit float weights, if all of them have.
const Json* float_weights(const Json& config) {
  const auto groups = config.find("config_groups");
  if (groups == config.end() || !groups->is_object()) return nullptr;
  const Json* first = nullptr;
  for (const Json& group : *groups) {
    const auto weights = group.is_object() ? group.find("weights") : group.end();
    if (!group.is_object() || weights == group.end() || !weights->is_object()) return nullptr;
    if (word_of(*weights, "type") != "float" || weights->value("num_bits", Json()) != 8) return nullptr;
    if (first == nullptr) first = &*weights;
  }
  return first;
}

// Sets is_fp8 and the block of an entry whose weights are e4m3.
void recognize_fp8(QuantizationEntry& entry, const fs::path& folder) {
  const Json& config = entry.config;
  const std::string method = entry.method();
  if (method == "fp8" || method == "fbgemm_fp8") {
    if (const auto format = config.find("fmt"); format != config.end() && *format != "e4m3") {
      throw UnsupportedError(cat(folder.string(), ": its quantization_config says fmt ", format->dump(),
                                 "; FP8 weights in e4m3 are read"));
    }
    entry.is_fp8 = true;
    entry.block = block_of(config.value("weight_block_size", Json()), "weight_block_size", folder);
  } else if (method == "compressed-tensors") {
    const Json* weights = float_weights(config);
    if (weights == nullptr) return;
    entry.is_fp8 = true;
    entry.block = block_of(weights->value("block_structure", Json()), "block_structure", folder);
    const Json group = weights->value("group_size", Json());
    if (word_of(*weights, "strategy") == "group" && group.is_number_integer())
      entry.block = block_of(Json::array({1, group}), "group_size", folder);
  } else if (method == "modelopt") {
    entry.is_fp8 = word_of(config, "quant_algo").starts_with("fp8");
  }
}

}  // namespace

std::string QuantizationEntry::method() const {
  if (config.is_null()) return "";
  for (const char* key : {"quant_method", "method"}) {
    if (const std::string method = word_of(config, key); !method.empty()) return method;
  }
  if (word_of(config, "quant_algo").empty())
    return is_true(config, "load_in_4bit") || is_true(config, "load_in_8bit") ? "bitsandbytes" : "gptq";
  return "modelopt";
}

QuantizationEntry read_quantization_entry(const Json& config, const fs::path& folder) {
  QuantizationEntry entry;
  if (const auto found = config.find("quantization_config"); found != config.end()) entry.config = *found;
  if (entry.config.is_null() && is_there(folder / "quantize_config.json"))
    entry.config = read_json(folder / "quantize_config.json");
  if (entry.config.is_null() && is_there(folder / kModelOptName)) {
    const Json file = read_json(folder / kModelOptName);
    if (file.is_object() && file.contains("quantization")) entry.config = file.at("quantization");
  }
  if (entry.config.is_null()) return entry;
  if (!entry.config.is_object()) throw file_error(folder, "its quantization_config is not a JSON object");
  const bool has_method = !word_of(entry.config, "quant_method").empty() || !word_of(entry.config, "method").empty() ||
                          !word_of(entry.config, "quant_algo").empty();
  if (!has_method && !says_how(entry.config)) {
    entry.config = nullptr;
    return entry;
  }
  recognize_fp8(entry, folder);
  return entry;
}

bool is_of_quantized(const StoredTensor& tensor) {
  static constexpr std::string_view kEnds[] = {
      ".qweight", ".qzeros",           ".scales",      ".g_idx",  ".weight_packed",     ".weight_scale",
      ".SCB",     ".weight_scale_inv", ".input_scale", ".absmax", ".weight_zero_point", "_blocks"};
  if (std::any_of(std::begin(kEnds), std::end(kEnds), [&](std::string_view end) { return tensor.name.ends_with(end); }))
    return true;
  const bool is_packed = tensor.dtype.starts_with("F8") || tensor.dtype.starts_with("F4") || tensor.dtype == "I8" ||
                         tensor.dtype == "U8" || tensor.dtype == "I32" || tensor.dtype == "I16";
  return is_packed && tensor.shape.size() >= 2 && !tensor.name.ends_with("bias");
}

}  // namespace gptq
