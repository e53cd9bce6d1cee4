// What is in a folder: family, sizes, modules, and who loads it. Reads headers, and the scales of one linear.
#include <algorithm>
#include <map>

#include "base/error.h"
#include "gptq/gptq.h"
#include "quant/format.h"
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
  std::vector<LinearSpec> quantized;
  for (const StoredTensor* tensor : checkpoint.tensors()) {
    const size_t dot = tensor->name.rfind('.');
    const std::string module = tensor->name.substr(0, dot),
                      part = dot == std::string::npos ? "" : tensor->name.substr(dot + 1);
    if (part == "qzeros" || part == "scales" || part == "g_idx") {
      if (checkpoint.has(module + ".qweight")) continue;  // counted with its qweight
    }
    Inspection::Module entry{.name = tensor->name,
                             .dtype = tensor->dtype,
                             .shape = tensor->shape,
                             .bytes = static_cast<int64_t>(tensor->bytes)};
    if (const auto linear = linears.find(module); part == "qweight" && linear != linears.end()) {
      const LinearSpec& spec = linear->second;
      quantized.push_back(spec);
      entry.name = module;
      entry.dtype = "gptq";
      entry.bits = static_cast<int>(tensor->shape.empty() ? 0 : tensor->shape[0] * 32 / spec.in_features);
      entry.shape = {spec.out_features, spec.in_features};
      for (const char* other : {".qzeros", ".scales", ".g_idx"}) {
        if (!checkpoint.has(module + other)) continue;
        const StoredTensor& stored = checkpoint.tensor(module + other);
        entry.bytes += static_cast<int64_t>(stored.bytes);
        if (other == std::string_view(".scales") && !stored.shape.empty() && stored.shape[0] > 0) {
          entry.group_size = spec.in_features / stored.shape[0];
        }
      }
      result.parameters += spec.in_features * spec.out_features;
    } else {
      result.parameters += element_count(*tensor);
    }
    result.modules.push_back(std::move(entry));
  }
  if (!checkpoint.quantization_config().is_null()) {
    QuantizationConfig quantization = parse_quantization_config(checkpoint.quantization_config(), folder);
    result.checkpoint_format = name_of(quantization.format);
    result.bits = quantization.bits;
    result.group_size = quantization.group_size;
    result.sym = quantization.sym;
    result.desc_act = quantization.desc_act;
    // Of one linear: where scales may be negative, about half of them are.
    if (!quantized.empty()) quantization.signed_scales = has_negative_scales(checkpoint, quantized.front().name);
    result.signed_scales = quantization.signed_scales;
    result.loaders = loader_verdicts(quantization, quantized);
  }
  return result;
}

}  // namespace gptq
