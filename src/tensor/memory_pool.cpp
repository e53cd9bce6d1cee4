#include "tensor/memory_pool.h"

#include "base/error.h"

namespace gptq {

void* MemoryPool::allocate(size_t bytes) {
  {
    std::lock_guard lock(mutex_);
    if (const auto found = held_.find(bytes); found != held_.end() && !found->second.empty()) {
      void* block = found->second.back();
      found->second.pop_back();
      return block;
    }
  }
  try {
    return source_.allocate(bytes);
  } catch (const DeviceError&) {
    trim();
    return source_.allocate(bytes);
  }
}

void MemoryPool::release(void* block, size_t bytes) noexcept {
  try {
    std::lock_guard lock(mutex_);
    std::vector<void*>& blocks = held_[bytes];
    if (blocks.size() < kHeldPerSize) {
      blocks.push_back(block);
      return;
    }
  } catch (const std::exception&) {  // no room to remember it
  }
  source_.release(block, bytes);
}

void MemoryPool::trim() noexcept {
  std::lock_guard lock(mutex_);
  for (const auto& [bytes, blocks] : held_) {
    for (void* block : blocks) source_.release(block, bytes);
  }
  held_.clear();
}

size_t MemoryPool::bytes_held() const {
  std::lock_guard lock(mutex_);
  size_t total = 0;
  for (const auto& [bytes, blocks] : held_) total += bytes * blocks.size();
  return total;
}

}  // namespace gptq
