#include "format/huggingface.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "io/checkpoint_writer.h"

namespace gptq {

namespace {

// Loaders that go by the flag alone would take the embedding for the head.
void untie(Json& config) {
  config["tie_word_embeddings"] = false;
  for (Json& value : config) {
    if (value.is_object() && value.contains("tie_word_embeddings")) value["tie_word_embeddings"] = false;
  }
}

}  // namespace

// A source's tensors in its order; in the place of one that is replaced, those of its linears.
OutputLayout HuggingFaceFormat::layout(const OutputModel& model, int64_t max_shard_bytes) const {
  OutputLayout result;
  for (const StoredTensor* tensor : model.source.tensors()) {
    const auto linears = model.replaced.find(tensor->name), biases = model.split_biases.find(tensor->name);
    if (biases != model.split_biases.end()) {
      for (const std::string& name : biases->second) {
        const LinearSpec& spec = model.quantized.at(name).spec;
        result.tensors.push_back({name + ".bias", tensor->dtype, {spec.out_features}});
      }
    } else if (linears != model.replaced.end()) {
      for (const std::string& name : linears->second) {
        const QuantizedLinear& linear = model.quantized.at(name);
        for (TensorSpec& spec : tensors(linear.spec, linear.recipe)) {
          result.quantized_bytes += static_cast<int64_t>(spec.bytes());
          result.tensors.push_back(std::move(spec));
        }
      }
    } else {
      result.tensors.push_back({tensor->name, tensor->dtype, tensor->shape});
    }
  }
  result.output_bytes =
      static_cast<int64_t>(CheckpointWriter::output_bytes(result.tensors, static_cast<size_t>(max_shard_bytes)));
  return result;
}

std::unique_ptr<ModelSink> HuggingFaceFormat::open(const std::filesystem::path& model, const OutputLayout& layout,
                                                   int64_t max_shard_bytes) const {
  return std::make_unique<CheckpointWriter>(model, layout.tensors, static_cast<size_t>(max_shard_bytes));
}

void HuggingFaceFormat::finish(ModelSink& sink, const Checkpoint& source, const OutputRecord& record) const {
  for (const auto& file : source.side_files()) sink.copy_file(source.folder() / file, file);
  const Json quantization = config(record);
  Json model_config = source.config();
  model_config["quantization_config"] = quantization;
  if (record.has_own_head) untie(model_config);
  sink.write_file("config.json", to_text(model_config));
  if (has_config_file()) sink.write_file("quantize_config.json", quantization.dump(2) + "\n");
}

Format::Sizes HuggingFaceFormat::sizes_along(size_t axis, const StoredTensor& codes, const StoredTensor& scales,
                                             const LinearSpec& linear) {
  Sizes sizes;
  const bool fits = codes.shape.size() == 2 && codes.shape[1 - axis] == linear.out_features;
  if (fits) sizes.bits = static_cast<int>(codes.shape[axis] * 32 / linear.in_features);
  if (scales.shape.size() == 2 && scales.shape[axis] > 0) sizes.group_size = linear.in_features / scales.shape[axis];
  return sizes;
}

}  // namespace gptq
