// What the operands of matrix products have in common: their bytes, and the stretches that sums are taken over.
#pragma once

#include "backend/cpu/cut.h"
#include "backend/cpu/product_kernels.h"
#include "tensor/matrix.h"

namespace gptq {

inline int64_t row_bytes(ConstMatrixView m) { return m.cols * static_cast<int64_t>(size_of(m.dtype)); }
inline int64_t stride_bytes(ConstMatrixView m) { return m.stride * static_cast<int64_t>(size_of(m.dtype)); }

inline const uint32_t* words_at(ConstMatrixView m, int64_t row) {
  return reinterpret_cast<const uint32_t*>(static_cast<const std::byte*>(m.data) + row * stride_bytes(m));
}

// The stretches of an inner dimension that are summed one after the other.
inline Cut stretches(const ProductKernel& kernel, int64_t words) { return {words, kernel.most_words, kernel.step}; }

}  // namespace gptq
