// What is in a folder: family, sizes, modules, and who loads it. Reads headers, and the scales of one linear.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "gptq/gptq.h"
#include "quant/linear_format.h"
#include "quant/loaders.h"
#include "quant/recipe.h"

namespace gptq {
namespace {

int64_t element_count(const StoredTensor& tensor) {
  int64_t count = 1;
  for (const int64_t size : tensor.shape) count *= size;
  return count;
}

}  // namespace

Inspection inspect(const std::string& folder) {
  const Checkpoint checkpoint(folder);
  const ModelConfig config = parse_model_config(checkpoint.config(), checkpoint.folder());
  Inspection result{.model = folder, .model_type = config.model_type};
  result.blocks = config.blocks;
  result.hidden = config.hidden;
  result.heads = config.heads;
  result.kv_heads = config.kv_heads;
  result.head_dim = config.head_dim;
  result.intermediate = config.intermediate;
  result.vocabulary = config.vocabulary;
  result.tied_embeddings = config.tied_embeddings;
  result.bytes = static_cast<int64_t>(checkpoint.bytes());

  std::map<std::string, LinearSpec> linears;
  for (int64_t block = 0; block < config.blocks; ++block) {
    for (const auto& step : step_specs(config, block)) {
      for (const LinearSpec& linear : step) linears.emplace(linear.name, linear);
    }
  }
  QuantizationConfig quantization;
  const bool is_quantized = !checkpoint.quantization_config().is_null();
  if (is_quantized) quantization = parse_quantization_config(checkpoint.quantization_config(), folder);
  const LinearFormat& format = linear_format(quantization.format);
  const LinearFormat::Parts& parts = format.parts();
  std::vector<std::string_view> beside = parts.others;  // the tensors of a linear that come with its codes
  beside.push_back(parts.scales);

  std::vector<LinearSpec> quantized;
  for (const StoredTensor* tensor : checkpoint.tensors()) {
    const size_t dot = tensor->name.rfind('.');
    const std::string module = tensor->name.substr(0, dot),
                      part = dot == std::string::npos ? "" : tensor->name.substr(dot + 1);
    if (std::find(beside.begin(), beside.end(), part) != beside.end()) {
      if (checkpoint.has(cat(module, ".", parts.codes))) continue;  // counted with its codes
    }
    Inspection::Module entry{.name = tensor->name,
                             .dtype = tensor->dtype,
                             .shape = tensor->shape,
                             .bytes = static_cast<int64_t>(tensor->bytes)};
    if (const auto linear = linears.find(module); part == parts.codes && linear != linears.end()) {
      const LinearSpec& spec = linear->second;
      quantized.push_back(spec);
      const StoredSizes sizes = format.sizes(*tensor, checkpoint.tensor(cat(module, ".", parts.scales)), spec);
      entry.name = module;
      entry.dtype = quantization.format == CheckpointFormat::compressed_tensors ? "compressed-tensors" : "gptq";
      entry.bits = sizes.bits;
      entry.group_size = sizes.group_size;
      entry.shape = {spec.out_features, spec.in_features};
      for (const std::string_view other : beside) {
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
    result.checkpoint_format = name_of(quantization.format);
    result.bits = quantization.bits;
    result.group_size = quantization.group_size;
    result.sym = quantization.sym;
    result.desc_act = quantization.desc_act;
    // Of one linear: where scales may be negative, about half of them are.
    if (!quantized.empty()) {
      quantization.signed_scales = has_negative_scales(checkpoint, quantized.front().name, quantization.format);
    }
    result.signed_scales = quantization.signed_scales;
    result.loaders = loader_verdicts(quantization, quantized);
  }
  return result;
}

}  // namespace gptq
