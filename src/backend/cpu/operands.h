// Operands of matrix products: row sizes in bytes, rows as dwords, and the k-blocks of the inner dimension.
#pragma once

#include "backend/cpu/partition.h"
#include "backend/cpu/product_kernels.h"
#include "tensor/matrix.h"

namespace gptq {

inline int64_t row_bytes(ConstMatrixView m) { return m.cols * static_cast<int64_t>(size_of(m.dtype)); }
inline int64_t stride_bytes(ConstMatrixView m) { return m.stride * static_cast<int64_t>(size_of(m.dtype)); }

inline const uint32_t* dwords_at(ConstMatrixView m, int64_t row) {
  return reinterpret_cast<const uint32_t*>(static_cast<const std::byte*>(m.data) + row * stride_bytes(m));
}

// Blocks of the inner dimension, accumulated in order.
inline Partition k_blocks(const ProductKernel& kernel, int64_t dwords) { return {dwords, kernel.kc, kernel.step}; }

}  // namespace gptq
