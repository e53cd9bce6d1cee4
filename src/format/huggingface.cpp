#include "format/huggingface.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace gptq {

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

std::unique_ptr<ModelSink> HuggingFaceFormat::open(const std::filesystem::path& source,
                                                   const std::filesystem::path& output, bool overwrite,
                                                   const OutputLayout& layout, int64_t max_shard_bytes) const {
  return std::make_unique<CheckpointWriter>(source, output, overwrite, layout.tensors,
                                            static_cast<size_t>(max_shard_bytes));
}

void HuggingFaceFormat::finish(ModelSink& sink, const Checkpoint& source, const OutputRecord& record) const {
  for (const auto& file : source.side_files()) sink.copy_file(source.folder() / file, file);
  const Json quantization = config(record);
  Json model_config = source.config();
  model_config["quantization_config"] = quantization;
  sink.write_file("config.json", model_config.dump(2) + "\n");
  if (has_config_file()) sink.write_file("quantize_config.json", quantization.dump(2) + "\n");
}

int64_t groups_of(const LinearSpec& linear, const Recipe& recipe) {
  return recipe.group_size == -1 ? 1 : linear.in_features / recipe.group_size;
}

const StoredTensor& checked(const Checkpoint& checkpoint, const std::string& name,
                            const std::vector<std::string>& dtypes, const std::vector<int64_t>& shape) {
  const StoredTensor& tensor = checkpoint.tensor(name);
  if (tensor.shape != shape) {
    throw tensor_error(checkpoint.folder(), name, name, " has shape ", shape_string(tensor.shape),
                       ", where the linear needs ", shape_string(shape));
  }
  if (std::find(dtypes.begin(), dtypes.end(), tensor.dtype) == dtypes.end())
    throw tensor_error(checkpoint.folder(), name, name, " is ", tensor.dtype, ", where the format has ", dtypes[0]);
  return tensor;
}

std::vector<float> to_floats(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  if (tensor.dtype == "F32") return elements<float>(checkpoint, tensor);
  std::vector<float> values;
  if (tensor.dtype == "BF16") {
    for (const Bf16 value : elements<Bf16>(checkpoint, tensor)) values.push_back(static_cast<float>(value));
  } else {
    for (const Half value : elements<Half>(checkpoint, tensor)) values.push_back(static_cast<float>(value));
  }
  return values;
}

}  // namespace gptq
