// Memory of one OpenCL device. OpenCL 1.2 has buffers and no addresses, so each buffer gets a range of addresses that
// nothing else has and that no processor can read; the place of a matrix is found from its address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "backend/opencl/device_list.h"
#include "tensor/matrix.h"

namespace gptq::opencl {

// A byte of a buffer.
struct BufferPlace {
  cl_mem buffer = nullptr;
  int64_t offset = 0;
  size_t bytes = 0;  // of the buffer
};

class DeviceMemory final : public Memory {
 public:
  // `device` must outlive it.
  DeviceMemory(cl_context context, const DeviceFacts& device, std::string name);
  ~DeviceMemory() override;
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // Throws OutOfMemory with what the device has.
  void* allocate(size_t bytes) override;
  // Commands that are queued keep their buffers.
  void release(void* block, size_t bytes) noexcept override;

  // Where an address of a block lies; throws DeviceError for one of the host or of another device.
  BufferPlace find(const void* address) const;

 private:
  const cl_context context_;
  const DeviceFacts& device_;
  const std::string name_;
  mutable std::mutex mutex_;
  struct Block {
    cl_mem buffer;
    size_t bytes;
  };
  std::map<uintptr_t, Block> blocks_;
  size_t in_use_ = 0;  // bytes of all blocks
  uintptr_t next_;
};

}  // namespace gptq::opencl
