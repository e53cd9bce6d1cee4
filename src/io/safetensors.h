// Safetensors files: fully validated when opened and read in pieces; written with sizes known in advance. Files are not
// memory-mapped, so a file that shrinks or a disk that fails during a read is an error and not a signal, and only the
// bytes requested take memory.
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

  // A view without data, with the tensor's dtype and shape; [n] is one row, and [n, 1, taps] of a convolution
  // n rows. Throws InputError for other shapes, UnsupportedError for a dtype that DType lacks.
  ConstMatrixView matrix() const;
};

// A tensor to be written; its size follows from dtype and shape.
struct TensorSpec {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  size_t bytes() const;  // throws InputError for an unknown dtype or a shape too large for any file
};

std::optional<DType> parse_safetensors_dtype(std::string_view name);  // "BF16" -> DType::bf16
std::string_view safetensors_name(DType dtype);                       // DType::bf16 -> "BF16"
std::string shape_string(const std::vector<int64_t>& shape);          // "[2, 3]"; the first 8

class SafetensorsFile {
 public:
  // Opens the file and validates its whole header: length, JSON, duplicate names, dtypes (all that the format has),
  // shapes (overflow), alignment, offsets without overlaps or gaps up to the end of the file. Throws InputError with
  // the file and the tensor.
  explicit SafetensorsFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // ordered by offset
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // Reads bytes [first, first + bytes) of the tensor. Thread-safe. Throws InputError for a read error or a file that
  // became shorter.
  void read(const StoredTensor& tensor, size_t first, size_t bytes, void* to) const;
  // The whole tensor in host memory.
  Matrix load(const StoredTensor& tensor, Memory& memory = host_memory()) const;

 private:
  // Sets tensors_ and metadata_; its errors do not name the file.
  void parse(std::string_view header, size_t data_size);

  std::filesystem::path path_;
  Descriptor file_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

class SafetensorsWriter {
 public:
  // Creates the file, reserves its final size on disk and writes the header with metadata {"format": "pt"}; a file that
  // has this size and header already keeps its contents. Tensors are stored in the order of `tensors`, but larger
  // element sizes first, so that each is aligned. Throws InputError if the disk is full or the file cannot be written.
  SafetensorsWriter(std::filesystem::path path, std::vector<TensorSpec> tensors);
  // Without finish() the destructor leaves an incomplete file, which the owner removes.

  // Writes a whole tensor. Tensors may come in any order and from any thread, each exactly once, else throws Error.
  void write(std::string_view name, const void* data, size_t bytes);
  // Writes a tensor in consecutive pieces; `first` is the offset of the piece in the tensor.
  void write_part(std::string_view name, size_t first, const void* data, size_t bytes);
  // Whether the file has a tensor already, from an earlier writer, with this digest(); and takes it as written.
  bool holds(std::string_view name, uint64_t digest) const;
  void keep(std::string_view name);
  // Syncs everything written so far to disk. Thread-safe.
  void flush();
  // Syncs and closes the file; throws Error if a tensor was not written.
  void finish();

  // Size of a file with these tensors, header included.
  static size_t file_size(const std::vector<TensorSpec>& tensors);

 private:
  struct Slot {
    size_t offset = 0, bytes = 0;
    size_t written = 0;  // bytes written so far
  };
  std::filesystem::path path_;
  size_t size_ = 0;  // of the whole file
  Descriptor file_;
  std::map<std::string, Slot, std::less<>> slots_;
};

}  // namespace gptq
