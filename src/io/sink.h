// A model that is being written: tensors whose sizes are known beforehand, and files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gptq {

// Names of tensors, and the digest() of each.
using Digests = std::vector<std::pair<std::string, uint64_t>>;

class ModelSink {
 public:
  virtual ~ModelSink() = default;

  // A whole tensor, or some of its bytes from `first` on, by the name that the layout has. Any thread may call them.
  virtual void write(std::string_view tensor, const void* data, size_t bytes) = 0;
  virtual void write_part(std::string_view tensor, size_t first, const void* data, size_t bytes) = 0;
  // Keeps tensors that an earlier run wrote here, instead of writing them: all of them, or none if one has another
  // digest().
  virtual bool keep(const Digests& tensors) = 0;
  // Replaces what an earlier run left of them.
  virtual void write_file(const std::filesystem::path& relative, std::string_view text) = 0;
  virtual void copy_file(const std::filesystem::path& from, const std::filesystem::path& relative) = 0;
  // Syncs the tensors written so far to disk. Any thread may call it.
  virtual void flush() = 0;
  // Checks that everything was written, and syncs it.
  virtual void finish() = 0;
  virtual size_t output_bytes() const = 0;  // of all tensors as stored, headers included
};

}  // namespace gptq
