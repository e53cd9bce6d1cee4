// Reads Hugging Face model folders: a single safetensors file, or shards with an index.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "io/folder_tensors.h"
#include "io/json.h"
#include "io/safetensors.h"

namespace gptq {

// Weights in a form that models are released in, such as FP8, appear as plain tensors and are computed when they are
// read; the tensors of their scales are hidden. So such a folder looks like a plain one. dequantize() does the same for
// others.
class Checkpoint {
 public:
  // Reads config.json and validates the headers of all safetensors files, those of find_weights(). Throws InputError
  // for a missing folder, config.json or weights (for pytorch_model.bin it says how to convert), an index that names a
  // missing shard or a file outside the folder, and what FolderTensors refuses.
  // Reads at most `max_read_rate` bytes a second; 0: no limit.
  explicit Checkpoint(std::filesystem::path folder, int64_t max_read_rate = 0);

  const std::filesystem::path& folder() const { return folder_; }
  const Json& config() const;
  // The quantization_config of config.json, or of a file beside it; null if all weights look plain.
  const Json& quantization_config() const;
  // Whether dequantize() can make the weights of this quantization_config plain ones.
  bool can_dequantize() const;
  // Lets quantized weights appear as plain ones; quantization_config() is then null. transposed: the model's linears
  // are plain tensors [in, out]. Throws InputError, with the tensor, for what does not fit together, UnsupportedError
  // for a form that is not read.
  void dequantize(bool transposed);
  // What a user should know of the folder, a sentence each: other weights in it, an index that does not fit.
  const std::vector<std::string>& warnings() const { return warnings_; }

  bool has(std::string_view name) const { return tensors_->find(name) != nullptr; }
  // The index names it, but no shard has it.
  bool is_phantom(std::string_view name) const { return tensors_->is_phantom(name); }
  // Throws InputError with the folder and the most similar names.
  const StoredTensor& tensor(std::string_view name) const { return *tensors_->at(name).tensor; }
  // Also throws if its shape is not `shape`; the error has both shapes and says that config.json implies `shape`.
  const StoredTensor& tensor(std::string_view name, const std::vector<int64_t>& shape) const;
  // All tensors, file by file, ordered by offset.
  std::vector<const StoredTensor*> tensors() const { return tensors_->all(); }
  // The tensor as stored: F8_E4M3 where read() returns BF16.
  const StoredTensor& in_file(const StoredTensor& tensor) const { return *tensors_->at(tensor.name).stored.tensor; }
  // As SafetensorsFile::read() and load(), for whole elements. Thread-safe.
  void read(const StoredTensor& tensor, size_t first, size_t bytes, void* to) const;
  Matrix load(const StoredTensor& tensor, Memory& memory = host_memory()) const;
  // Whether two tensors have the same shape and, read to f32, the same values. Reads until they differ; remembers the
  // answer. Thread-safe.
  bool equal(const StoredTensor& a, const StoredTensor& b) const;

  std::vector<std::filesystem::path> side_files() const { return find_side_files(folder_); }
  size_t side_bytes() const;                                // of all side files
  std::vector<std::filesystem::path> weight_files() const;  // the safetensors files, sorted
  size_t bytes() const;                                     // of all tensors as stored
  size_t bytes_read() const;                                // read so far, by read() and load()

 private:
  struct Configs;  // config.json and the quantization config
  // Counts bytes read, and limits the rate.
  struct Meter;
  struct Delete {
    void operator()(Configs* configs) const noexcept;
    void operator()(Meter* meter) const noexcept;
  };
  std::filesystem::path folder_;
  std::unique_ptr<Configs, Delete> configs_;
  std::unique_ptr<FolderTensors> tensors_;
  std::vector<std::string> warnings_;
  std::unique_ptr<Meter, Delete> meter_;
};

// Throws InputError with the tensor's name unless `count`, its number of NaN and infinite values, is 0.
void refuse_nonfinite(const Checkpoint& checkpoint, const StoredTensor& tensor, int64_t count);

}  // namespace gptq
