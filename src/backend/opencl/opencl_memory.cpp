#include "backend/opencl/opencl_memory.h"

#include <algorithm>

#include "base/error.h"
#include "base/rounding.h"

namespace gptq::opencl {
namespace {

// No processor of 64 bits has such addresses, so reading one on the host ends the program.
constexpr uintptr_t kFirstAddress = uintptr_t{1} << 56;
constexpr size_t kAlignment = 4096;

}  // namespace

DeviceMemory::DeviceMemory(cl_context context, const DeviceFacts& device, std::string name)
    : context_(context), device_(device), name_(std::move(name)), next_(kFirstAddress) {}

DeviceMemory::~DeviceMemory() {
  for (const auto& [address, block] : blocks_) api().clReleaseMemObject(block.buffer);
}

void* DeviceMemory::allocate(size_t bytes) {
  const size_t size = std::max<size_t>(bytes, 1);
  std::lock_guard lock(mutex_);
  // Some drivers find memory for a buffer when it is first used, and fail only then.
  cl_int result = CL_MEM_OBJECT_ALLOCATION_FAILURE;
  cl_mem buffer = nullptr;
  if (size <= static_cast<size_t>(device_.memory) - std::min(in_use_, static_cast<size_t>(device_.memory)))
    buffer = api().clCreateBuffer(context_, CL_MEM_READ_WRITE, size, nullptr, &result);
  if (result != CL_SUCCESS) {
    throw OutOfMemory(cat(name_, " is out of memory: ", bytes, " bytes asked for; it has ", device_.memory,
                          ", of which ", in_use_, " are in use here, and its driver gives ", device_.largest_block,
                          " at once; other programs may be using it"));
  }
  in_use_ += size;
  const uintptr_t address = next_;
  next_ += static_cast<size_t>(rounded_up(static_cast<int64_t>(size), kAlignment)) + kAlignment;
  blocks_[address] = {buffer, size};
  return reinterpret_cast<void*>(address);  // NOLINT: an address that stands for a buffer
}

void DeviceMemory::release(void* block, size_t /*bytes*/) noexcept {
  std::lock_guard lock(mutex_);
  const auto found = blocks_.find(reinterpret_cast<uintptr_t>(block));
  if (found == blocks_.end()) return;
  api().clReleaseMemObject(found->second.buffer);
  in_use_ -= found->second.bytes;
  blocks_.erase(found);
}

BufferPlace DeviceMemory::find(const void* address) const {
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  std::lock_guard lock(mutex_);
  auto block = blocks_.upper_bound(wanted);
  if (block == blocks_.begin() || (--block, wanted - block->first > block->second.bytes))
    throw DeviceError(cat(name_, " was given a matrix that is not in its memory"));
  return {block->second.buffer, static_cast<int64_t>(wanted - block->first), block->second.bytes};
}

}  // namespace gptq::opencl
