// Writes the weights and files of a Hugging Face model folder.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/safetensors.h"
#include "io/sink.h"

namespace gptq {

class CheckpointWriter final : public ModelSink {
 public:
  // Lays the tensors out in the given order, in shards of at most `max_shard_bytes` (a single tensor may exceed it):
  // model.safetensors, or model-00001-of-0000N.safetensors and model.safetensors.index.json. Creates `folder`; in one
  // that exists, shards of the same layout keep their contents. Throws InputError if the disk is full, or for missing
  // permission.
  CheckpointWriter(std::filesystem::path folder, std::vector<TensorSpec> tensors, size_t max_shard_bytes);
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // As in SafetensorsWriter. Thread-safe.
  void write(std::string_view tensor, const void* data, size_t bytes) override;
  void write_part(std::string_view tensor, size_t first, const void* data, size_t bytes) override;
  bool keep(const Digests& tensors) override;
  void write_file(const std::filesystem::path& relative, std::string_view text) override;
  // Byte for byte, with its permissions.
  void copy_file(const std::filesystem::path& from, const std::filesystem::path& relative) override;
  void flush() override;
  void finish() override;

  size_t output_bytes() const override { return output_bytes_; }  // of all weight files
  // The same, computed without writing.
  static size_t output_bytes(std::vector<TensorSpec> tensors, size_t max_shard_bytes);

 private:
  SafetensorsWriter& shard_of(std::string_view tensor);
  // Opens a file for writing, in place of one that exists.
  Descriptor create(const std::filesystem::path& relative, std::filesystem::perms mode) const;

  std::filesystem::path folder_;
  size_t output_bytes_ = 0;
  std::vector<SafetensorsWriter> shards_;
  std::unordered_map<std::string, size_t> shard_of_;
};

}  // namespace gptq
