// Kernels that more than one op queues, as functions on a stream. They do not allocate, synchronize or throw, but for
// aligned_copy(), which allocates.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/gpu.h"

namespace gptq::cuda {

// Whether the current device can run these kernels: cudaErrorNoKernelImageForDevice where none was built for it.
cudaError_t probe();

void copy(ConstMatrixView x, MatrixView y, cudaStream_t stream);  // y = x, both of the same dtype, any
void convert(ConstMatrixView x, MatrixView y, cudaStream_t stream);
void clear(MatrixView y, cudaStream_t stream);
void add_bias(ConstMatrixView bias, MatrixView y, cudaStream_t stream);  // y += bias, to every row
// x in dtype, its rows starting at multiples of 8 elements.
Matrix aligned_copy(Gpu& gpu, ConstMatrixView x, DType dtype);

}  // namespace gptq::cuda
