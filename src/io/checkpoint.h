// Hugging Face model folders: Checkpoint reads one (a single safetensors file, or shards with an index),
// CheckpointWriter writes one, completely or not at all.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "io/fp8.h"
#include "io/safetensors.h"
#include "io/sink.h"

namespace gptq {

using Json = nlohmann::ordered_json;  // keeps the order of keys, so that a copied config.json looks like its source

// Parses a JSON file. Throws InputError with the file, and the line and column of a syntax error.
Json read_json(const std::filesystem::path& path);

// FP8 weights (quant_method "fp8" of DeepSeek-V3, Qwen3 and others, or "fbgemm_fp8") appear as bf16 tensors and are
// dequantized when read; the tensors of their scales are hidden. So such a folder looks like a plain one.
class Checkpoint {
 public:
  // Reads config.json and validates the headers of all safetensors files: the shards that model.safetensors.index.json
  // names, else model.safetensors, else the only *.safetensors. A tensor of a shard that the index omits belongs to the
  // model too. Throws InputError for a missing folder, config.json or weights (for pytorch_model.bin it says how to
  // convert), an index that names a missing shard or tensor or a file outside the folder, a tensor in two shards.
  // Reads at most `max_read_rate` bytes a second; 0: no limit.
  explicit Checkpoint(std::filesystem::path folder, int64_t max_read_rate = 0);

  const std::filesystem::path& folder() const { return folder_; }
  const Json& config() const;
  // The quantization_config of config.json, else that of quantize_config.json; null if not quantized, or only in FP8.
  const Json& quantization_config() const;

  bool has(std::string_view name) const { return by_name_.count(std::string(name)) != 0; }
  // Throws InputError with the folder and the most similar names.
  const StoredTensor& tensor(std::string_view name) const;
  // Also throws if its shape is not `shape`; the error has both shapes and says that config.json implies `shape`.
  const StoredTensor& tensor(std::string_view name, const std::vector<int64_t>& shape) const;
  // All tensors, file by file, ordered by offset.
  std::vector<const StoredTensor*> tensors() const;
  // The tensor as stored: F8_E4M3 where read() returns BF16.
  const StoredTensor& in_file(const StoredTensor& tensor) const;
  // As SafetensorsFile::read() and load(), for whole elements. Thread-safe.
  void read(const StoredTensor& tensor, size_t first, size_t bytes, void* to) const;
  Matrix load(const StoredTensor& tensor, Memory& memory = host_memory()) const;

  // The model's other regular files, subfolders included, as sorted relative paths; follows links to files, not to
  // folders. Omits config.json and quantize_config.json; hidden files and folders (.git, .cache); unquantized weights
  // of any format and their indices (*.safetensors, *model*.bin, *.pt, *.pth, *.ckpt, *.gguf, *.h5, *.msgpack, *.ot,
  // *.onnx, *.onnx_data); and the folder original/, where some models have a copy in their author's own format.
  std::vector<std::filesystem::path> side_files() const;
  size_t bytes() const;       // of all tensors as stored
  size_t bytes_read() const;  // read so far, by read() and load()

 private:
  struct Place {
    const SafetensorsFile* file;
    const StoredTensor* tensor;
    const Fp8Weight* fp8 = nullptr;  // dequantized into `tensor`, or null
  };
  struct Configs;  // config.json and the quantization config
  // Counts bytes read, and limits the rate.
  struct Meter;
  struct Delete {
    void operator()(Configs* configs) const noexcept;
    void operator()(Meter* meter) const noexcept;
  };
  void find_fp8_weights(Fp8Block block);

  std::filesystem::path folder_;
  std::unique_ptr<Configs, Delete> configs_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<std::unique_ptr<Fp8Weight>> fp8_weights_;
  std::unordered_map<std::string, Place> by_name_;
  std::unique_ptr<Meter, Delete> meter_;
};

// Throws InputError with the tensor's name unless `count`, its number of NaN and infinite values, is 0.
void refuse_nonfinite(const Checkpoint& checkpoint, const StoredTensor& tensor, int64_t count);

// Writes a model folder under a temporary name next to `output`, syncs it to disk and renames it when complete:
// `output` is complete or absent.
class CheckpointWriter final : public ModelSink {
 public:
  // Lays the tensors out in the given order, in shards of at most `max_shard_bytes` (a single tensor may exceed it):
  // model.safetensors, or model-00001-of-0000N.safetensors and model.safetensors.index.json.
  // Throws InputError if `output` exists without `overwrite` (which replaces only empty folders and such that look like
  // a model); if `output` is, contains or lies inside `source`; for missing permission; for too little free space (with
  // both numbers). Creates missing parent folders, and removes them again without commit().
  CheckpointWriter(const std::filesystem::path& source, std::filesystem::path output, bool overwrite,
                   std::vector<TensorSpec> tensors, size_t max_shard_bytes);
  ~CheckpointWriter() override;  // without commit(): removes everything written
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // As in SafetensorsWriter. Thread-safe.
  void write(std::string_view tensor, const void* data, size_t bytes) override;
  void write_part(std::string_view tensor, size_t first, const void* data, size_t bytes) override;
  void write_file(const std::filesystem::path& relative, std::string_view text) override;
  void copy_file(const std::filesystem::path& from, const std::filesystem::path& relative) override;  // byte for byte
  // Finishes the shards, writes the index, syncs and renames into place. An old output is first moved to
  // OUTPUT.old-PID; it is moved back if the rename fails, and removed last.
  void commit() override;

  // Removes the partial `output` of a writer of this process whose destructor will not run.
  static void remove_partial(const std::filesystem::path& output) noexcept;

  size_t output_bytes() const override { return output_bytes_; }  // of all weight files
  // The same, computed without writing.
  static size_t output_bytes(std::vector<TensorSpec> tensors, size_t max_shard_bytes);

 private:
  SafetensorsWriter& shard_of(std::string_view tensor);
  std::filesystem::path create(const std::filesystem::path& relative) const;  // the temporary path of a file
  void abandon() noexcept;                                                    // removes everything written so far

  std::filesystem::path output_, temporary_, old_;
  std::vector<std::filesystem::path> created_parents_;  // outermost first
  bool overwrite_ = false, committed_ = false;
  size_t output_bytes_ = 0;
  std::vector<SafetensorsWriter> shards_;
  std::unordered_map<std::string, size_t> shard_of_;
  std::string index_;
};

}  // namespace gptq
