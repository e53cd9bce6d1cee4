// A Hugging Face model folder: read whole (one safetensors file, or shards with an index), and written whole or not at
// all.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json.hpp>

#include "io/fp8.h"
#include "io/safetensors.h"
#include "io/sink.h"

namespace gptq {

using Json = nlohmann::ordered_json;  // keeps the order of keys, so a copied config.json looks like its source

// Parses a JSON file. Throws InputError naming the file, and the line and column where it is broken.
Json read_json(const std::filesystem::path& path);

// Weights in FP8 (quant_method "fp8" of DeepSeek-V3, Qwen3 and others, or "fbgemm_fp8") are seen and read as the bf16
// weights that they stand for, and the tensors of their scales are not seen at all: such a folder is a plain one.
class Checkpoint {
 public:
  // Opens the folder: config.json and its safetensors files, all headers validated. Those are the shards that
  // model.safetensors.index.json names, else model.safetensors, else the only *.safetensors there is; a tensor that the
  // index leaves out belongs to the model too. Throws InputError for a missing folder, a folder without config.json or
  // weights (pytorch_model.bin: says how to convert), an index that names a missing shard or tensor or a file outside
  // the folder, a tensor in two shards.
  // Reading is held to `max_read_rate` bytes a second, 0 being no limit.
  explicit Checkpoint(std::filesystem::path folder, int64_t max_read_rate = 0);

  const std::filesystem::path& folder() const { return folder_; }
  const Json& config() const { return config_; }
  // The quantization_config of config.json, or of quantize_config.json where config.json has none; null when not
  // quantized, or in FP8 only.
  const Json& quantization_config() const { return quantization_config_; }

  bool has(std::string_view name) const { return by_name_.count(std::string(name)) != 0; }
  // Throws InputError naming the folder and the nearest names there are.
  const StoredTensor& tensor(std::string_view name) const;
  // The same, and its shape must be `shape`; the error says both shapes and that config.json implies the expected one.
  const StoredTensor& tensor(std::string_view name, const std::vector<int64_t>& shape) const;
  // All tensors, file by file in order of offset.
  std::vector<const StoredTensor*> tensors() const;
  // The tensor as its file has it: F8_E4M3 where read() gives BF16.
  const StoredTensor& in_file(const StoredTensor& tensor) const;
  // As SafetensorsFile::read() and load(), for whole elements. Any thread may call them.
  void read(const StoredTensor& tensor, size_t first, size_t bytes, void* to) const;
  Matrix load(const StoredTensor& tensor, Memory& memory = host_memory()) const;

  // Every other regular file of the folder, relative and sorted, that belongs to the model, subfolders included; linked
  // files count, linked folders do not. Left out: config.json and quantize_config.json; hidden files and folders (.git,
  // .cache); weights of any format and their indices, which would be the unquantized ones once more: *.safetensors,
  // *model*.bin, *.pt, *.pth, *.ckpt, *.gguf, *.h5, *.msgpack, *.ot, *.onnx, *.onnx_data; and the folder original/,
  // where some models keep a copy in their maker's own format.
  std::vector<std::filesystem::path> side_files() const;
  size_t bytes() const;       // of all tensors, as the files have them
  size_t bytes_read() const;  // by read() and load() so far

 private:
  struct Place {
    const SafetensorsFile* file;
    const StoredTensor* tensor;
    const Fp8Weight* fp8 = nullptr;  // what `tensor` is read from
  };
  // Bytes read so far, and by when the next may be.
  struct Meter;
  struct DeleteMeter {
    void operator()(Meter* meter) const noexcept;
  };
  void find_fp8_weights(Fp8Block block);

  std::filesystem::path folder_;
  Json config_, quantization_config_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<std::unique_ptr<Fp8Weight>> fp8_weights_;
  std::unordered_map<std::string, Place> by_name_;
  std::unique_ptr<Meter, DeleteMeter> meter_;
};

// Writes a model folder under a temporary name beside `output`, fsynced, and renamed when complete: `output` is whole
// or absent.
class CheckpointWriter final : public ModelSink {
 public:
  // Lays the tensors out in shards of at most `max_shard_bytes` (one tensor may exceed it), in the given order:
  // model.safetensors, or model-00001-of-0000N.safetensors and model.safetensors.index.json.
  // Throws InputError: `output` exists and not `overwrite` (an existing one must be a folder that looks like a model,
  // or an empty one); `output` is, contains or lies inside `source`; no permission; less free space than needed (both
  // numbers said). Missing parent folders are created, and removed again without commit().
  CheckpointWriter(const std::filesystem::path& source, std::filesystem::path output, bool overwrite,
                   std::vector<TensorSpec> tensors, size_t max_shard_bytes);
  ~CheckpointWriter() override;  // without commit(): removes everything it wrote
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // As the functions of SafetensorsWriter; any thread may call them.
  void write(std::string_view tensor, const void* data, size_t bytes) override;
  void write_part(std::string_view tensor, size_t first, const void* data, size_t bytes) override;
  void write_file(const std::filesystem::path& relative, std::string_view text) override;
  void copy_file(const std::filesystem::path& from, const std::filesystem::path& relative) override;
  // Finishes the shards, writes the index, fsyncs all and renames into place; an old output is moved aside first
  // (OUTPUT.old-PID), put back if the new one cannot take its place, and removed last.
  void commit() override;

  // Removes what a writer of this process that cannot be destroyed any more has written for `output` so far.
  static void remove_partial(const std::filesystem::path& output) noexcept;

  size_t output_bytes() const override { return output_bytes_; }  // of all weight files
  // The same, without writing anything.
  static size_t output_bytes(std::vector<TensorSpec> tensors, size_t max_shard_bytes);

 private:
  SafetensorsWriter& shard_of(std::string_view tensor);
  std::filesystem::path create(const std::filesystem::path& relative) const;  // the path to write a file at
  void abandon() noexcept;                                                    // removes what there is so far

  std::filesystem::path output_, temporary_, old_;
  std::vector<std::filesystem::path> created_parents_;  // outermost first
  bool overwrite_ = false, committed_ = false;
  size_t output_bytes_ = 0;
  std::vector<SafetensorsWriter> shards_;
  std::unordered_map<std::string, size_t> shard_of_;
  std::string index_;
};

}  // namespace gptq
