// A model that is being written: tensors whose sizes are known beforehand, and files. Whole once it is committed, or
// absent.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace gptq {

class ModelSink {
 public:
  virtual ~ModelSink() = default;

  // A whole tensor, or some of its bytes from `first` on, by the name that the layout has. Any thread may call them.
  virtual void write(std::string_view tensor, const void* data, size_t bytes) = 0;
  virtual void write_part(std::string_view tensor, size_t first, const void* data, size_t bytes) = 0;
  virtual void write_file(const std::filesystem::path& relative, std::string_view text) = 0;
  virtual void copy_file(const std::filesystem::path& from, const std::filesystem::path& relative) = 0;
  virtual void commit() = 0;
  virtual size_t output_bytes() const = 0;  // of all tensors as stored, headers included
};

}  // namespace gptq
