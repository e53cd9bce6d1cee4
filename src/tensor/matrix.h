// A view and an owner of a row-major matrix in some device's memory.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "tensor/dtype.h"

namespace gptq {

// Row r starts `stride` elements after row r - 1. Owns nothing. Void is `void` or `const void`.
template <typename Void>
struct BasicMatrixView {
  Void* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0, cols = 0, stride = 0;

  BasicMatrixView() = default;
  BasicMatrixView(Void* data, DType dtype, int64_t rows, int64_t cols, int64_t stride)
      : data(data), dtype(dtype), rows(rows), cols(cols), stride(stride) {}
  BasicMatrixView(Void* data, DType dtype, int64_t rows, int64_t cols)
      : BasicMatrixView(data, dtype, rows, cols, cols) {}
  // A mutable view converts to a const one.
  template <typename Other>
  requires(std::is_const_v<Void>&& std::is_void_v<Other> && !std::is_const_v<Other>)
      BasicMatrixView(const BasicMatrixView<Other>& other)  // NOLINT: implicit on purpose
      : BasicMatrixView(other.data, other.dtype, other.rows, other.cols, other.stride) {}

  bool empty() const { return rows == 0 || cols == 0; }
  int64_t size() const { return rows * cols; }

  // Typed pointer to the start of row r. T must be the element type of `dtype`.
  template <typename T>
  auto row(int64_t r) const {
    assert(sizeof(T) == size_of(dtype));
    using Element = std::conditional_t<std::is_const_v<Void>, const T, T>;
    return static_cast<Element*>(data) + r * stride;
  }

  BasicMatrixView row_range(int64_t first, int64_t count) const { return block(first, count, 0, cols); }
  BasicMatrixView col_range(int64_t first, int64_t count) const { return block(0, rows, first, count); }
  BasicMatrixView block(int64_t first_row, int64_t row_count, int64_t first_col, int64_t col_count) const {
    assert(first_row >= 0 && first_row + row_count <= rows && first_col >= 0 && first_col + col_count <= cols);
    using Byte = std::conditional_t<std::is_const_v<Void>, const std::byte, std::byte>;
    const int64_t offset = (first_row * stride + first_col) * static_cast<int64_t>(size_of(dtype));
    return {static_cast<Byte*>(data) + offset, dtype, row_count, col_count, stride};
  }
};

using MatrixView = BasicMatrixView<void>;
using ConstMatrixView = BasicMatrixView<const void>;

// Host memory, or one device's. allocate() throws OutOfMemory.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual void* allocate(size_t bytes) = 0;  // at least 64-byte aligned; contents undefined
  virtual void release(void* block, size_t bytes) noexcept = 0;
};

// The host's memory, aligned to 64 bytes: one object for the whole process (tensor/page_memory.h).
Memory& host_memory();

// Owns a dense matrix (stride = cols). Move-only; the memory must outlive it.
class Matrix {
 public:
  Matrix() = default;
  Matrix(Memory& memory, DType dtype, int64_t rows, int64_t cols) : memory_(&memory) {
    view_ = MatrixView(memory.allocate(bytes_of(dtype, rows, cols)), dtype, rows, cols);
  }
  Matrix(Matrix&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), view_(std::exchange(other.view_, {})) {}
  Matrix& operator=(Matrix&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(view_, other.view_);
    return *this;
  }
  ~Matrix() {
    if (memory_ != nullptr) memory_->release(view_.data, bytes());
  }

  MatrixView view() { return view_; }
  ConstMatrixView view() const { return view_; }
  operator MatrixView() { return view_; }             // NOLINT: an owner is used as its view
  operator ConstMatrixView() const { return view_; }  // NOLINT

  bool empty() const { return view_.empty(); }
  DType dtype() const { return view_.dtype; }
  int64_t rows() const { return view_.rows; }
  int64_t cols() const { return view_.cols; }
  size_t bytes() const { return bytes_of(view_.dtype, view_.rows, view_.cols); }
  template <typename T>
  T* row(int64_t r) {
    return view_.row<T>(r);
  }
  template <typename T>
  const T* row(int64_t r) const {
    return view_.row<T>(r);
  }

 private:
  static size_t bytes_of(DType dtype, int64_t rows, int64_t cols) {
    return static_cast<size_t>(rows) * static_cast<size_t>(cols) * size_of(dtype);
  }

  Memory* memory_ = nullptr;
  MatrixView view_;
};

}  // namespace gptq
