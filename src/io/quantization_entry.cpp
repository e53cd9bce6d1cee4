#include "io/quantization_entry.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string_view>

#include "base/error.h"
#include "io/checkpoint_files.h"
#include "io/file.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

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

}  // namespace

std::string word_in(const Json& object, const char* key) {
  std::string word = string_in(object, key);
  std::transform(word.begin(), word.end(), word.begin(), [](unsigned char c) { return std::tolower(c); });
  return word;
}

std::string checkpoint_format_of(const Json& config) {
  for (const char* key : {"checkpoint_format", "format"}) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) continue;
    return found->is_string() ? found->get<std::string>() : shown(*found);
  }
  return "";
}

std::string QuantizationEntry::method() const {
  if (config.is_null()) return "";
  for (const char* key : {"quant_method", "method"}) {
    if (const std::string method = word_in(config, key); !method.empty()) return method;
  }
  if (word_in(config, "quant_algo").empty())
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
  const bool has_method = !word_in(entry.config, "quant_method").empty() || !word_in(entry.config, "method").empty() ||
                          !word_in(entry.config, "quant_algo").empty();
  if (!has_method && !says_how(entry.config)) {
    entry.config = nullptr;
    return entry;
  }
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
