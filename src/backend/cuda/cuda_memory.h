// Memory of one CUDA device, and host memory that it copies from and to at full speed.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <cuda_runtime_api.h>

#include "tensor/matrix.h"

namespace gptq::cuda {

// Throws DeviceError saying the device, what it was doing and what CUDA says.
void check(cudaError_t result, const std::string& device, std::string_view doing);

// Allocated and released in the order of a stream, from a pool of the driver, which reuses released blocks without
// asking the device.
class DeviceMemory final : public Memory {
 public:
  DeviceMemory(int index, std::string name, cudaStream_t stream);
  ~DeviceMemory() override;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // Throws OutOfMemory with what is free on the device.
  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;
  // Gives what is held for reuse back to the device.
  void trim() noexcept;
  int64_t bytes_held() const;

 private:
  void* try_allocate(size_t bytes);
  uint64_t attribute(cudaMemPoolAttr which) const;

  const int index_;
  const std::string name_;
  const cudaStream_t stream_;
  cudaMemPool_t pool_ = nullptr;
};

// Host memory that is registered with CUDA. Blocks are kept for the next request of their size, because registering
// costs more than a copy. A block is reused only when the copies that were queued before its release are done, so
// nobody needs to wait for a copy from it.
class StagingMemory final : public Memory {
 public:
  // Takes its memory from `source`, which must outlive it.
  StagingMemory(Memory& source, int index, std::string name, cudaStream_t stream)
      : source_(source), index_(index), name_(std::move(name)), stream_(stream) {}
  ~StagingMemory() override { trim(); }
  StagingMemory(const StagingMemory&) = delete;
  StagingMemory& operator=(const StagingMemory&) = delete;

  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;
  bool owns(const void* address) const;
  void trim() noexcept;

 private:
  struct Idle {
    void* block;
    cudaEvent_t copied;
  };
  void give_back(void* block, size_t bytes) noexcept;

  Memory& source_;
  const int index_;
  const std::string name_;
  const cudaStream_t stream_;
  mutable std::mutex mutex_;
  std::map<const std::byte*, size_t> blocks_;  // all, by address
  std::map<size_t, std::vector<Idle>> idle_;
};

}  // namespace gptq::cuda
