// Matrix products: operands are packed into panels, then tasks multiply panels into tiles of the result. A sum runs
// over k-blocks whose length depends on the kernel alone, in order: how the result is split into tasks never changes
// it.
//
#pragma once

#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/operands.h"

namespace gptq::cpu {

// Dwords of packed weights at a time, which all tasks share.
constexpr int64_t kPackedDwords = int64_t{4} << 20;

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
inline DType dtype_of(const ProductKernel& kernel) { return kernel.k_per_dword == 2 ? DType::bf16 : DType::f32; }
inline bool is_packable(const ProductKernel& kernel, DType dtype) { return dtype == dtype_of(kernel); }
inline constexpr int64_t kDwordBytes = sizeof(uint32_t);
// Dwords of the B panels of n rows of k elements.
inline int64_t b_dwords(const ProductKernel& kernel, int64_t n, int64_t k) {
  return pieces_of(n, kernel.cols) * kernel.cols * kernel.dwords_of(k);
}

bool is_finite(const CpuBackend& cpu, ConstMatrixView x, int64_t row);
// x in f32, at `wide`.
ConstMatrixView wide_rows(const CpuBackend& cpu, ConstMatrixView x, float* wide);
// A row of x in the kernel's dtype, padded with zeros to `dwords` dwords.
void pack_row(const CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, int64_t row, int64_t dwords,
              uint32_t* to);
// One B panel of w's rows, at most kernel.cols; or of x's columns, at most `width`, with the dwords of either
// operand.
void pack_b(CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView w, uint32_t* panel);
void pack_columns(const CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, int64_t dwords, int64_t width,
                  uint32_t* panel);
// The B panels of w, in order, on all threads.
void pack_weight(CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView w, uint32_t* packed);

// A panels of x's rows: x itself where its layout allows, else packed in `room`, which holds a_room() dwords.
struct APanels {
  const uint32_t* data;
  int64_t row_stride, step_stride, panel_stride;
};
APanels pack_a(const CpuBackend& cpu, const ProductKernel& kernel, ConstMatrixView x, uint32_t* room);
int64_t a_room(const ProductKernel& kernel, ConstMatrixView x);

// y = a b' + bias for neighbouring B panels.
void multiply_panels(CpuBackend& cpu, const ProductKernel& kernel, int64_t dwords, const APanels& a, const uint32_t* b,
                     const float* bias, MatrixView y);

}  // namespace gptq::cpu
