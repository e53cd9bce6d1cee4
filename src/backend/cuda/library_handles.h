// cuBLAS and cuSOLVER on one stream. Each starts when it is first needed.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include <cublas_v2.h>
#include <cusolverDn.h>

#include "backend/cuda/multiplier.h"
#include "backend/cuda/owned.h"
#include "tensor/matrix.h"

namespace gptq::cuda {

class LibraryHandles {
 public:
  // Memory that cuBLAS may use in addition to its operands: NVIDIA's recommended workspace for Hopper.
  static constexpr int64_t kWorkspace = int64_t{32} << 20;

  // Takes its workspace from `memory`, which must outlive it.
  LibraryHandles(Memory& memory, std::string device, cudaStream_t stream)
      : memory_(memory), device_(std::move(device)), stream_(stream) {}

  Multiplier& multiplier();
  cublasHandle_t blas();
  cusolverDnHandle_t solver();

 private:
  void* workspace();

  Memory& memory_;
  const std::string device_;
  const cudaStream_t stream_;
  Matrix workspace_;
  std::unique_ptr<Multiplier> multiplier_;
  Owned<cublasHandle_t, &cublasDestroy> blas_;
  Owned<cusolverDnHandle_t, &cusolverDnDestroy> solver_;
};

}  // namespace gptq::cuda
