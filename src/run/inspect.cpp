// inspect(): family, sizes, modules and loaders of a folder. Reads headers, and the scales of a quantized folder.
#include <algorithm>
#include <map>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "format/loaders.h"
#include "gptq/gptq.h"
#include "model/specs.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

int64_t element_count(const StoredTensor& tensor) {
  int64_t count = 1;
  for (const int64_t size : tensor.shape) count *= size;
  return count;
}

// All linears of the blocks, and the head.
std::vector<StoredLinear> unquantized_linears(const ModelConfig& config) {
  std::vector<StoredLinear> linears;
  for (const auto& step : all_steps(config)) {
    for (const LinearSpec& linear : step) linears.push_back({linear, {}});
  }
  linears.push_back({head_spec(config), {}});
  return linears;
}

// The config of one linear in a folder with this config.
QuantizationConfig stored_config(const QuantizationConfig& folder, const Format::Sizes& sizes,
                                 const LinearSpec& linear) {
  QuantizationConfig config = folder;
  for (const ModuleRule& rule : folder.dynamic) {
    if (!matches(rule, linear.name)) continue;
    config.sym = rule.sym.value_or(config.sym);
    config.desc_act = rule.desc_act.value_or(config.desc_act);
    break;
  }
  config.dynamic.clear();
  config.bits = sizes.bits;
  config.group_size = sizes.group_size == linear.in_features ? -1 : sizes.group_size;
  return config;
}

// What config.json says.
Inspection sizes_of(const ModelConfig& config) {
  Inspection result{.model_type = config.model_type};
  result.blocks = config.blocks;
  result.hidden = config.hidden;
  result.heads = config.heads;
  result.kv_heads = config.kv_heads;
  result.head_dim = config.head_dim;
  result.intermediate = config.intermediate;
  result.vocabulary = config.vocabulary;
  result.tied_embeddings = config.tied_embeddings;
  return result;
}

std::vector<std::string> warnings_of(const Checkpoint& checkpoint, const ModelConfig& config) {
  std::vector<std::string> warnings = checkpoint.warnings();
  warnings.insert(warnings.end(), config.warnings.begin(), config.warnings.end());
  for (const std::string& key : config.unread) {
    warnings.push_back(cat(checkpoint.folder().string(), ": nothing reads ", key,
                           " of its config.json, which may change what it computes"));
  }
  return warnings;
}

}  // namespace

Inspection inspect(const std::string& folder, std::stop_token stop) {
  Checkpoint checkpoint(folder);
  const Json& stored = checkpoint.quantization_config();
  if (!stored.is_null() && !reads_codes(stored) && checkpoint.can_dequantize()) dequantize(checkpoint);
  const ModelConfig config = parse_model_config(checkpoint);
  Inspection result = sizes_of(config);
  result.model = folder;
  result.warnings = warnings_of(checkpoint, config);
  result.bytes = static_cast<int64_t>(checkpoint.bytes());

  std::vector<StoredLinear> linears = unquantized_linears(config);
  std::map<std::string, size_t> by_name;
  for (size_t i = 0; i < linears.size(); ++i) by_name.emplace(linears[i].spec.name, i);
  QuantizationConfig quantization{.format = &format_of({})};
  const bool is_quantized = !checkpoint.quantization_config().is_null();
  if (is_quantized) quantization = parse_quantization_config(checkpoint.quantization_config(), folder);
  const Format& format = *quantization.format;
  const Format::Parts& parts = format.parts();
  std::vector<std::string_view> accompanying = parts.others;  // a linear's tensors other than its codes
  accompanying.push_back(parts.scales);

  std::vector<const StoredTensor*> scales;
  std::map<int, bool> signed_scales;  // by bits, from one linear each: about half of signed scales are negative
  for (const StoredTensor* tensor : checkpoint.tensors()) {
    check_stop(stop);
    const size_t dot = tensor->name.rfind('.');
    const std::string module = tensor->name.substr(0, dot),
                      part = dot == std::string::npos ? "" : tensor->name.substr(dot + 1);
    if (std::find(accompanying.begin(), accompanying.end(), part) != accompanying.end() &&
        checkpoint.has(cat(module, ".", parts.codes))) {  // counted with the codes
      if (part == parts.scales) scales.push_back(tensor);
      continue;
    }
    const StoredTensor& in_file = checkpoint.in_file(*tensor);
    Inspection::Module entry{.name = tensor->name,
                             .dtype = in_file.dtype,
                             .shape = tensor->shape,
                             .bytes = static_cast<int64_t>(in_file.bytes)};
    if (const auto found = by_name.find(module); part == parts.codes && found != by_name.end()) {
      StoredLinear& linear = linears[found->second];
      const LinearSpec& spec = linear.spec;
      const StoredTensor& scale = checkpoint.tensor(cat(module, ".", parts.scales));
      const Format::Sizes sizes = format.sizes(*tensor, scale, spec);
      if (sizes.bits == 0 || sizes.group_size == 0) {
        throw tensor_error(folder, tensor->name, "tensor '", tensor->name, "' with shape ", shape_string(tensor->shape),
                           " and scales ", shape_string(scale.shape), " is no packing of [", spec.out_features, ", ",
                           spec.in_features, "], which config.json implies");
      }
      linear.config = stored_config(quantization, sizes, spec);
      const auto known = signed_scales.find(sizes.bits);
      linear.config->signed_scales =
          known != signed_scales.end() ? known->second
                                       : (signed_scales[sizes.bits] = has_negative_scales(checkpoint, module, format));
      entry.name = module;
      entry.dtype = format.method();
      entry.bits = sizes.bits;
      entry.group_size = sizes.group_size;
      entry.shape = {spec.out_features, spec.in_features};
      for (const std::string_view other : accompanying) {
        const std::string name = cat(module, ".", other);
        if (checkpoint.has(name)) entry.bytes += static_cast<int64_t>(checkpoint.tensor(name).bytes);
      }
      result.parameters += spec.in_features * spec.out_features;
    } else {
      result.parameters += element_count(*tensor);
    }
    result.modules.push_back(std::move(entry));
  }
  if (is_quantized) {
    check_scales(checkpoint, scales, stop);
    result.checkpoint_format = format.name();
    result.bits = quantization.bits;
    result.group_size = quantization.group_size;
    result.sym = quantization.sym;
    result.desc_act = quantization.desc_act;
    for (const auto& [bits, has_negative] : signed_scales) result.signed_scales = result.signed_scales || has_negative;
    result.loaders = loader_verdicts(format, linears, config);
  }
  return result;
}

}  // namespace gptq
