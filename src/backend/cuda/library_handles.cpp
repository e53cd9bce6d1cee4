#include "backend/cuda/library_handles.h"

#include "backend/cuda/library_errors.h"

namespace gptq::cuda {

Multiplier& LibraryHandles::multiplier() {
  if (multiplier_ == nullptr) {
    multiplier_ = std::make_unique<Multiplier>(device_, stream_, workspace(), static_cast<size_t>(kWorkspace));
  }
  return *multiplier_;
}

cublasHandle_t LibraryHandles::blas() {
  if (blas_ == nullptr) {
    cublasHandle_t handle = nullptr;
    check(cublasCreate(&handle), device_, "starting cuBLAS");
    blas_.reset(handle);
    check(cublasSetStream(handle, stream_), device_, "starting cuBLAS");
    check(cublasSetWorkspace(handle, workspace(), static_cast<size_t>(kWorkspace)), device_, "starting cuBLAS");
  }
  return blas_.get();
}

cusolverDnHandle_t LibraryHandles::solver() {
  if (solver_ == nullptr) {
    cusolverDnHandle_t handle = nullptr;
    check(cusolverDnCreate(&handle), device_, "starting cuSOLVER");
    solver_.reset(handle);
    check(cusolverDnSetStream(handle, stream_), device_, "starting cuSOLVER");
  }
  return solver_.get();
}

void* LibraryHandles::workspace() {
  if (workspace_.empty()) workspace_ = Matrix(memory_, DType::u8, 1, kWorkspace);
  return workspace_.view().data;
}

}  // namespace gptq::cuda
