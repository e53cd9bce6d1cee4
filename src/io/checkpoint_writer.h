// Writes a Hugging Face model folder, completely or not at all.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "io/safetensors.h"
#include "io/sink.h"

namespace gptq {

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
