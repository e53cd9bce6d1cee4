// Formats whose container is a Hugging Face folder: safetensors files, the source's other files, and a
// quantization_config in config.json.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "format/format.h"

namespace gptq {

class HuggingFaceFormat : public Format {
 public:
  OutputLayout layout(const OutputModel& model, int64_t max_shard_bytes) const override;
  std::unique_ptr<ModelSink> open(const std::filesystem::path& source, const std::filesystem::path& output,
                                  bool overwrite, const OutputLayout& layout, int64_t max_shard_bytes) const override;
  void finish(ModelSink& sink, const Checkpoint& source, const OutputRecord& record) const override;

  virtual Json config(const OutputRecord& record) const = 0;  // the quantization_config
  virtual bool has_config_file() const = 0;                   // it goes to quantize_config.json too
};

int64_t groups_of(const LinearSpec& linear, const Recipe& recipe);

template <typename T>
std::span<const T> elements(const Matrix& host) {
  return {host.row<T>(0), static_cast<size_t>(host.view().size())};
}

template <typename T>
std::vector<T> elements(const Checkpoint& checkpoint, const StoredTensor& tensor) {
  std::vector<T> values(tensor.bytes / sizeof(T));
  checkpoint.read(tensor, 0, tensor.bytes, values.data());
  return values;
}

// A tensor of `shape` and one of `dtypes`; throws InputError for another.
const StoredTensor& checked(const Checkpoint& checkpoint, const std::string& name,
                            const std::vector<std::string>& dtypes, const std::vector<int64_t>& shape);

// The values of an F16, BF16 or F32 tensor.
std::vector<float> to_floats(const Checkpoint& checkpoint, const StoredTensor& tensor);

}  // namespace gptq
