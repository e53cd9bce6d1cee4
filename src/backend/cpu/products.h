// Matrix products: operands are packed into panels, then tasks multiply panels into tiles of the result. A sum runs
// over k-blocks whose length depends on the kernel alone, in order: how the result is split into tasks never changes
// it.
//
// "Left" is the A operand, "right" the B operand of a product.
#pragma once

#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/panels.h"

namespace gptq::cpu {

// Words of packed weights at a time, which all tasks share.
constexpr int64_t kPackedWords = int64_t{4} << 20;

inline bool are_bf16(ConstMatrixView a, ConstMatrixView b) { return a.dtype == DType::bf16 && b.dtype == DType::bf16; }

// The kernel for products of the rows of a and b, or of their columns.
const ProductKernel& product_kernel(const CpuBackend& cpu, ConstMatrixView a, ConstMatrixView b);
const ProductKernel& columns_kernel(const CpuBackend& cpu, ConstMatrixView a, ConstMatrixView b);
// The same for matrices of one dtype.
inline const ProductKernel& product_kernel(const CpuBackend& cpu, DType dtype) {
  const ConstMatrixView like(nullptr, dtype, 0, 0);
  return product_kernel(cpu, like, like);
}
inline const ProductKernel& columns_kernel(const CpuBackend& cpu, DType dtype) {
  const ConstMatrixView like(nullptr, dtype, 0, 0);
  return columns_kernel(cpu, like, like);
}
// The dtype that a kernel multiplies, and whether a matrix of `dtype` needs no conversion for it.
inline DType dtype_of(const ProductKernel& kernel) { return kernel.word == 2 ? DType::bf16 : DType::f32; }
inline bool is_packable(const ProductKernel& kernel, DType dtype) { return dtype == dtype_of(kernel); }
inline constexpr int64_t kWordBytes = sizeof(uint32_t);
// Words of the right panels of n rows of k elements.
inline int64_t right_words(const ProductKernel& kernel, int64_t n, int64_t k) {
  return pieces_of(n, kernel.cols) * kernel.cols * kernel.words_of(k);
}

bool is_finite(const CpuBackend& cpu, ConstMatrixView x, int64_t row);
// x in f32, at `wide`.
ConstMatrixView wide_rows(const CpuBackend& cpu, ConstMatrixView x, float* wide);
// A row of x in the kernel's dtype, padded with zeros to `words` words.
void pack_row(const CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, int64_t row, int64_t words,
              uint32_t* to);
// One right panel of w's rows, at most kernel.cols; or of x's columns, at most `width`, with the words of either
// operand.
void pack_right(CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView w, uint32_t* panel);
void pack_columns(const CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, int64_t words, int64_t width,
                  uint32_t* panel);
// The right panels of w, in order, on all threads.
void pack_weight(CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView w, uint32_t* packed);

// Left panels of x's rows: x itself where its layout allows, else packed in `room`, which holds left_room() words.
struct LeftPanels {
  const uint32_t* data;
  int64_t row_stride, step_stride, panel_stride;
};
LeftPanels pack_left(const CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, uint32_t* room);
int64_t left_room(const ProductKernel& kernel, ConstMatrixView x);

// y = left right' + bias, of neighbouring right panels.
void multiply_panels(CpuBackend& cpu, const ProductKernel& kernel, int64_t words, const LeftPanels& left,
                     const uint32_t* right, const float* bias, MatrixView y);

}  // namespace gptq::cpu
