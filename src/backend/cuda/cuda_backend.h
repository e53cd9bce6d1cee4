// One NVIDIA GPU as a Backend: one stream, on which everything is queued in order. cuBLASLt computes products, cuSOLVER
// factorizes, own kernels do the rest. Only calls that bring a result to the host wait for the device: download(), the
// factorization and wait().
#pragma once

#include <string>
#include <vector>

#include <cuda_runtime_api.h>

#include "backend/backend.h"
#include "backend/cuda/cuda_memory.h"
#include "backend/cuda/device_clock.h"
#include "backend/cuda/gpu.h"
#include "backend/cuda/library_handles.h"
#include "backend/cuda/owned.h"
#include "tensor/memory_pool.h"

namespace gptq::cuda {

class CudaBackend final : public Backend {
 public:
  CudaBackend(int index, const BackendOptions& options);
  ~CudaBackend() override;

  std::string name() const override { return name_; }
  std::string description() const override { return description_; }
  std::string arithmetic() const override;
  DType compute_dtype(DType stored) const override { return stored; }
  void wait() override;
  void trim() noexcept override;
  void trim_staging() noexcept override { staging_.trim(); }
  MemoryUse memory_use() const override { return {limited_.bytes(), memory_.bytes_held(), limited_.peak_bytes()}; }
  int64_t batch_tokens(DType /*computed*/) const override { return 8192; }
  int64_t workspace_bytes() const override { return LibraryHandles::kWorkspace; }
  Memory& staging_memory() override { return staging_; }
  void set_stage(const char* stage) override;
  std::vector<DeviceSeconds> device_seconds() override;

  void* allocate(size_t bytes) override { return limited_.allocate(bytes); }
  void release(void* block, size_t bytes) noexcept override { limited_.release(block, bytes); }

  void compute(const ops::OpRef& op) override;

 private:
  void copy_in(MatrixView to, const void* from) override;
  void copy_out(void* to, ConstMatrixView from) override;
  // Makes this device the current one of the thread; the clock counts the work that follows as `op`.
  void begin(const char* op);

  const int index_;
  const std::string name_;
  std::string description_;
  const char* stage_ = "";
  Owned<cudaStream_t, &cudaStreamDestroy> stream_;
  DeviceMemory memory_;
  LimitedMemory limited_;
  StagingMemory staging_;
  DeviceClock clock_;
  LibraryHandles libraries_;
  Gpu gpu_;
};

}  // namespace gptq::cuda
