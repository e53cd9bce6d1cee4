// One OpenCL device as a Backend, named xpu:N: one queue in order, own kernels for every op. Calls that bring something
// to the host or from it wait for the device: upload(), download(), the factorization and wait().
#pragma once

#include <string>

#include "backend/backend.h"
#include "backend/opencl/device_list.h"
#include "backend/opencl/opencl_memory.h"
#include "backend/opencl/owned.h"
#include "backend/opencl/programs.h"
#include "backend/opencl/xpu.h"
#include "tensor/memory_pool.h"

namespace gptq::opencl {

class OpenclBackend final : public Backend {
 public:
  OpenclBackend(int index, DeviceFacts device, const BackendOptions& options);
  ~OpenclBackend() override;

  std::string name() const override { return name_; }
  std::string description() const override { return device_.description(); }
  std::string arithmetic() const override;
  DType compute_dtype(DType stored) const override { return stored; }
  void wait() override;
  void trim() noexcept override;
  MemoryUse memory_use() const override {
    return {limited_.bytes(), static_cast<int64_t>(pool_.bytes_held()), limited_.peak_bytes()};
  }
  int64_t batch_tokens(DType /*computed*/) const override { return device_.is_cpu ? 2048 : 8192; }
  // What temporaries of ops take at most; panels keep it small.
  int64_t workspace_bytes() const override { return int64_t{32} << 20; }
  Memory& staging_memory() override { return staging_; }

  void* allocate(size_t bytes) override { return limited_.allocate(bytes); }
  void release(void* block, size_t bytes) noexcept override { limited_.release(block, bytes); }

  void compute(const ops::OpRef& op) override;

 private:
  void copy_in(MatrixView to, const void* from) override { xpu_.write(to, from); }
  void copy_out(void* to, ConstMatrixView from) override { xpu_.read(to, from); }

  const std::string name_;
  const DeviceFacts device_;
  Memory& staging_;
  Context context_;
  Queue queue_;
  DeviceMemory memory_;
  MemoryPool pool_{memory_};
  LimitedMemory limited_;
  Programs programs_;
  Xpu xpu_;
};

}  // namespace gptq::opencl
