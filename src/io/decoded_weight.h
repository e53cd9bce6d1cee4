// Weights that a folder stores in another form than their values, which are computed when they are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace gptq {

// A tensor and its file, which must outlive what reads it.
struct FileTensor {
  const SafetensorsFile* file = nullptr;
  const StoredTensor* tensor = nullptr;

  void read(size_t first, size_t bytes, void* to) const { file->read(*tensor, first, bytes, to); }
  const std::vector<int64_t>& shape() const { return tensor->shape; }
};

class DecodedWeight {
 public:
  virtual ~DecodedWeight() = default;
  DecodedWeight(const DecodedWeight&) = delete;
  DecodedWeight& operator=(const DecodedWeight&) = delete;

  const FileTensor& stored() const { return stored_; }    // its codes
  const StoredTensor& values() const { return values_; }  // as read() returns it
  // Reads `count` values from value `first` on, in the dtype of values(). Thread-safe. Returns the bytes read from the
  // files.
  virtual size_t read(size_t first, size_t count, void* to) const = 0;

 protected:
  DecodedWeight(FileTensor stored, std::string name, std::vector<int64_t> shape, DType dtype);

 private:
  FileTensor stored_;
  StoredTensor values_;
};

// Matrices [..., rows, cols] whose rows are decoded in f32, a few at a time.
class DecodedRows : public DecodedWeight {
 public:
  size_t read(size_t first, size_t count, void* to) const final;

 protected:
  // `shape` as the rows are stored; values() has each matrix transposed if `transposed`.
  DecodedRows(FileTensor stored, std::string name, std::vector<int64_t> shape, DType dtype, bool transposed);

  int64_t rows() const { return rows_; }  // of one matrix
  int64_t cols() const { return cols_; }
  // Rows and columns of all matrices, one below the other.
  struct Tile {
    int64_t row = 0, rows = 0, col = 0, cols = 0;
  };
  // Writes [tile.rows, tile.cols] values. Columns are whole rows, or multiples of column_unit(). Returns the bytes
  // read.
  virtual size_t decode(const Tile& tile, float* to) const = 0;
  virtual int64_t column_unit() const { return cols_; }

 private:
  size_t read_rows(int64_t first, int64_t count, std::byte* to) const;
  size_t read_transposed(int64_t matrix, int64_t first, int64_t count, std::byte* to) const;

  int64_t rows_ = 0, cols_ = 0;
  bool transposed_ = false;
};

// The values of a float tensor from value `first` on, as f32: F32, F16, BF16, F8_E4M3, and F8_E8M0, which U8 may hold.
std::vector<float> read_floats(const FileTensor& tensor, size_t first, size_t count);
// Bytes of one of these values.
size_t float_bytes(const FileTensor& tensor);

}  // namespace gptq
