#include "backend/cuda/cuda_memory.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace gptq::cuda {

void check(cudaError_t result, const std::string& device, std::string_view doing) {
  if (result == cudaSuccess) return;
  cudaGetLastError();  // clears errors that are not sticky
  throw DeviceError(cat(device, ": ", doing, ": ", cudaGetErrorString(result), " (", cudaGetErrorName(result), ")"));
}

DeviceMemory::DeviceMemory(int index, std::string name, cudaStream_t stream)
    : index_(index), name_(std::move(name)), stream_(stream) {
  int pools = 0;
  check(cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, index), name_, "asking for memory pools");
  if (pools == 0) return;
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, index};
  check(cudaMemPoolCreate(&pool_, &properties), name_, "making a memory pool");
  uint64_t threshold = UINT64_MAX;  // nothing goes back to the device before trim()
  check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &threshold), name_, "making a memory pool");
}

DeviceMemory::~DeviceMemory() {
  if (pool_ == nullptr) return;
  cudaSetDevice(index_);
  cudaStreamSynchronize(stream_);
  cudaMemPoolDestroy(pool_);
}

void* DeviceMemory::try_allocate(size_t bytes) {
  void* block = nullptr;
  const cudaError_t result =
      pool_ != nullptr ? cudaMallocFromPoolAsync(&block, bytes, pool_, stream_) : cudaMalloc(&block, bytes);
  if (result == cudaSuccess) return block;
  if (result != cudaErrorMemoryAllocation) check(result, name_, cat("allocating ", bytes, " bytes"));
  cudaGetLastError();
  return nullptr;
}

void* DeviceMemory::allocate(size_t bytes) {
  cudaSetDevice(index_);
  const size_t asked = std::max<size_t>(bytes, 1);
  if (void* block = try_allocate(asked)) return block;
  trim();
  if (void* block = try_allocate(asked)) return block;
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  throw OutOfMemory(cat(name_, " is out of memory: ", bytes, " bytes asked for, ", free, " of ", total,
                        " bytes are free; other programs may be using it"));
}

void DeviceMemory::release(void* block, size_t /*bytes*/) noexcept {
  cudaSetDevice(index_);
  pool_ != nullptr ? cudaFreeAsync(block, stream_) : cudaFree(block);
}

void DeviceMemory::trim() noexcept {
  if (pool_ == nullptr) return;
  cudaSetDevice(index_);
  cudaStreamSynchronize(stream_);
  cudaMemPoolTrimTo(pool_, 0);
}

uint64_t DeviceMemory::attribute(cudaMemPoolAttr which) const {
  uint64_t value = 0;
  if (pool_ != nullptr) cudaMemPoolGetAttribute(pool_, which, &value);
  return value;
}

int64_t DeviceMemory::bytes_held() const {
  return static_cast<int64_t>(attribute(cudaMemPoolAttrReservedMemCurrent) - attribute(cudaMemPoolAttrUsedMemCurrent));
}

void* StagingMemory::allocate(size_t bytes) {
  cudaSetDevice(index_);
  Idle found{nullptr, nullptr};
  {
    std::lock_guard lock(mutex_);
    std::vector<Idle>& idle = idle_[bytes];
    // The block released first is the most likely to be free.
    if (!idle.empty()) {
      found = idle.front();
      idle.erase(idle.begin());
    }
  }
  if (found.block != nullptr) {
    const cudaError_t copied = cudaEventSynchronize(found.copied);
    cudaEventDestroy(found.copied);
    if (copied != cudaSuccess) {
      give_back(found.block, bytes);
      check(copied, name_, "waiting for a copy");
    }
    return found.block;
  }
  void* block = source_.allocate(bytes);
  // Where a limit on locked memory forbids registering, copies are slower and otherwise the same.
  if (cudaHostRegister(block, std::max<size_t>(bytes, 1), cudaHostRegisterPortable) != cudaSuccess) cudaGetLastError();
  std::lock_guard lock(mutex_);
  blocks_[static_cast<const std::byte*>(block)] = bytes;
  return block;
}

void StagingMemory::release(void* block, size_t bytes) noexcept {
  cudaSetDevice(index_);
  cudaEvent_t copied = nullptr;
  try {
    if (cudaEventCreateWithFlags(&copied, cudaEventDisableTiming | cudaEventBlockingSync) == cudaSuccess &&
        cudaEventRecord(copied, stream_) == cudaSuccess) {
      std::lock_guard lock(mutex_);
      idle_[bytes].push_back({block, copied});
      return;
    }
  } catch (const std::exception&) {  // no memory for the list
  }
  if (copied != nullptr) cudaEventDestroy(copied);
  cudaStreamSynchronize(stream_);
  give_back(block, bytes);
}

bool StagingMemory::owns(const void* address) const {
  std::lock_guard lock(mutex_);
  auto next = blocks_.upper_bound(static_cast<const std::byte*>(address));
  return next != blocks_.begin() &&
         static_cast<const std::byte*>(address) < std::prev(next)->first + std::prev(next)->second;
}

void StagingMemory::give_back(void* block, size_t bytes) noexcept {
  if (cudaHostUnregister(block) != cudaSuccess) cudaGetLastError();
  {
    std::lock_guard lock(mutex_);
    blocks_.erase(static_cast<const std::byte*>(block));
  }
  source_.release(block, bytes);
}

void StagingMemory::trim() noexcept {
  cudaSetDevice(index_);
  std::map<size_t, std::vector<Idle>> idle;
  {
    std::lock_guard lock(mutex_);
    idle.swap(idle_);
  }
  for (const auto& [bytes, blocks] : idle) {
    for (const Idle& each : blocks) {
      cudaEventSynchronize(each.copied);
      cudaEventDestroy(each.copied);
      give_back(each.block, bytes);
    }
  }
}

}  // namespace gptq::cuda
