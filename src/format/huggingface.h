// Formats whose container is a Hugging Face folder: safetensors files, the source's other files, and a
// quantization_config in config.json.
#pragma once

#include <filesystem>
#include <memory>

#include "format/format.h"

namespace gptq {

class HuggingFaceFormat : public Format {
 public:
  OutputLayout layout(const OutputModel& model, int64_t max_shard_bytes) const override;
  std::unique_ptr<ModelSink> open(const std::filesystem::path& model, const OutputLayout& layout,
                                  int64_t max_shard_bytes) const override;
  void finish(ModelSink& sink, const Checkpoint& source, const OutputRecord& record) const override;

  virtual Json config(const OutputRecord& record) const = 0;  // the quantization_config
  virtual bool has_config_file() const = 0;                   // it goes to quantize_config.json too

 protected:
  // sizes() where the inputs run along this axis of the codes and the scales.
  static Sizes sizes_along(size_t axis, const StoredTensor& codes, const StoredTensor& scales,
                           const LinearSpec& linear);
};

}  // namespace gptq
