#include "backend/cuda/gpu.h"

#include <utility>

#include <cublas_v2.h>
#include <cusolverDn.h>

#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/library_errors.h"
#include "backend/cuda/multiplier.h"

namespace gptq::cuda {

struct Gpu::Libraries {
  Matrix workspace;
  std::unique_ptr<Multiplier> multiplier;
  Owned<cublasHandle_t, &cublasDestroy> blas;
  Owned<cusolverDnHandle_t, &cusolverDnDestroy> solver;
};

Gpu::Gpu(Backend& backend, std::string name, cudaStream_t stream)
    : backend_(backend), name_(std::move(name)), stream_(stream), libraries_(std::make_unique<Libraries>()) {}

Gpu::~Gpu() = default;

Memory& Gpu::memory() { return backend_; }

Matrix Gpu::copy_of(const void* data, size_t bytes) {
  Matrix matrix(memory(), DType::i32, 1, static_cast<int64_t>(bytes / sizeof(int32_t)));
  if (bytes > 0) {
    check(cudaMemcpyAsync(matrix.view().data, data, bytes, cudaMemcpyHostToDevice, stream_), name_, "copying to it");
  }
  return matrix;
}

std::vector<int32_t> Gpu::fetch(const Matrix& matrix) { return to_host<int32_t>(backend_, matrix); }

Multiplier& Gpu::multiplier() {
  if (libraries_->multiplier == nullptr) {
    libraries_->multiplier = std::make_unique<Multiplier>(name_, stream_, workspace(), static_cast<size_t>(kWorkspace));
  }
  return *libraries_->multiplier;
}

cublasContext* Gpu::blas() {
  if (libraries_->blas == nullptr) {
    cublasHandle_t handle = nullptr;
    check(cublasCreate(&handle), name_, "starting cuBLAS");
    libraries_->blas.reset(handle);
    check(cublasSetStream(handle, stream_), name_, "starting cuBLAS");
    check(cublasSetWorkspace(handle, workspace(), static_cast<size_t>(kWorkspace)), name_, "starting cuBLAS");
  }
  return libraries_->blas.get();
}

cusolverDnContext* Gpu::solver() {
  if (libraries_->solver == nullptr) {
    cusolverDnHandle_t handle = nullptr;
    check(cusolverDnCreate(&handle), name_, "starting cuSOLVER");
    libraries_->solver.reset(handle);
    check(cusolverDnSetStream(handle, stream_), name_, "starting cuSOLVER");
  }
  return libraries_->solver.get();
}

void* Gpu::workspace() {
  if (libraries_->workspace.empty()) libraries_->workspace = Matrix(memory(), DType::u8, 1, kWorkspace);
  return libraries_->workspace.view().data;
}

}  // namespace gptq::cuda
