// Safetensors files: completely validated when opened, read piece by piece; written with sizes known beforehand.
// Nothing is mapped: a file that shrinks or a disk that fails while it is read is an error, not a signal, and only what
// is asked for takes memory.
// Format: https://github.com/huggingface/safetensors (8-byte little-endian header length, JSON header, data).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "tensor/matrix.h"

namespace gptq {

// A tensor inside a file.
struct StoredTensor {
  std::string name;
  std::string dtype;  // the file's spelling: "F32", "BF16", "I32", ...
  std::vector<int64_t> shape;
  size_t offset = 0, bytes = 0;  // from the start of the file

  // A matrix without data, of the tensor's dtype and shape: [n] is one row. Throws InputError for other ranks or a
  // dtype that DType lacks.
  ConstMatrixView matrix() const;
};

// What a written tensor will be; bytes follow from dtype and shape.
struct TensorSpec {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  size_t bytes() const;  // throws InputError for an unknown dtype, or a shape too large for any file
};

std::optional<DType> parse_safetensors_dtype(std::string_view name);  // "BF16" -> DType::bf16
std::string_view safetensors_name(DType dtype);                       // DType::bf16 -> "BF16"
std::string shape_string(const std::vector<int64_t>& shape);          // "[2, 3]"

class SafetensorsFile {
 public:
  // Opens the file and validates everything in its header: length, JSON, duplicate names, dtypes (all of the format are
  // taken), shapes (overflow), alignment, offsets without overlap or hole that end where the file ends. Throws
  // InputError naming file and tensor.
  explicit SafetensorsFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in order of their offsets
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // Reads `bytes` bytes of the tensor, from byte `first` of it on. Any thread may call it. Throws InputError when the
  // disk refuses or the file has become shorter.
  void read(const StoredTensor& tensor, size_t first, size_t bytes, void* to) const;
  // The whole tensor in host memory.
  Matrix load(const StoredTensor& tensor, Memory& memory = host_memory()) const;

 private:
  // Fills tensors_ and metadata_; its errors do not name the file.
  void parse(std::string_view header, size_t data_size);

  std::filesystem::path path_;
  Descriptor file_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

class SafetensorsWriter {
 public:
  // Creates the file at its final size (disk space reserved, so a full disk shows here) and writes the header with
  // metadata {"format": "pt"}. Tensors lie in the order of `tensors`, those of larger elements first, so that each is
  // aligned. Throws InputError when the disk is full or refuses.
  SafetensorsWriter(std::filesystem::path path, std::vector<TensorSpec> tensors);
  // Destroyed without finish(), it leaves the file incomplete, for its owner to remove.

  // Writes one tensor's bytes, in any order of tensors and from any thread; each exactly once, else Error.
  void write(std::string_view name, const void* data, size_t bytes);
  // The same in pieces, one after the other: `first` is the byte of the tensor with which this piece begins.
  void write_part(std::string_view name, size_t first, const void* data, size_t bytes);
  // fsyncs and closes; throws Error when a tensor was never written.
  void finish();

  // Bytes that a file with these tensors takes on disk, header included.
  static size_t file_size(const std::vector<TensorSpec>& tensors);

 private:
  struct Slot {
    size_t offset = 0, bytes = 0;
    size_t written = 0;  // bytes so far
  };
  std::filesystem::path path_;
  size_t size_ = 0;  // of the whole file
  Descriptor file_;
  std::map<std::string, Slot, std::less<>> slots_;
};

}  // namespace gptq
