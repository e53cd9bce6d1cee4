#include "backend/cuda/gpu.h"

#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/library_handles.h"

namespace gptq::cuda {

Memory& Gpu::memory() { return backend_; }

Matrix Gpu::copy_of(const void* data, size_t bytes) {
  Matrix matrix(memory(), DType::i32, 1, static_cast<int64_t>(bytes / sizeof(int32_t)));
  if (bytes > 0) {
    check(cudaMemcpyAsync(matrix.view().data, data, bytes, cudaMemcpyHostToDevice, stream_), name_, "copying to it");
  }
  return matrix;
}

void Gpu::fetch(const Matrix& matrix, void* to) { backend_.download(to, matrix); }

Multiplier& Gpu::multiplier() { return libraries_.multiplier(); }

cublasContext* Gpu::blas() { return libraries_.blas(); }

cusolverDnContext* Gpu::solver() { return libraries_.solver(); }

}  // namespace gptq::cuda
