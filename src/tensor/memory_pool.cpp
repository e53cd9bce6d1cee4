#include "tensor/memory_pool.h"

#include <algorithm>

#include "base/error.h"

namespace gptq {

bool LimitedMemory::take(int64_t bytes) {
  std::lock_guard lock(mutex_);
  if (limit_ > 0 && bytes > limit_ - bytes_) return false;
  bytes_ += bytes;
  peak_ = std::max(peak_, bytes_);
  return true;
}

void* LimitedMemory::allocate(size_t bytes) {
  const auto asked = static_cast<int64_t>(bytes);
  bool taken = take(asked);
  if (!taken && reclaim_) {
    reclaim_();
    taken = take(asked);
  }
  if (!taken) {
    throw OutOfMemory(
        cat(name_, " is out of memory: ", asked, " bytes asked for, ", this->bytes(), " of ", limit_, " bytes in use"));
  }
  for (bool reclaimed = !reclaim_;; reclaimed = true) {
    try {
      return source_.allocate(bytes);
    } catch (const OutOfMemory& error) {
      if (!reclaimed) {
        reclaim_();
        continue;
      }
      std::lock_guard lock(mutex_);
      bytes_ -= asked;
      throw OutOfMemory(cat(name_, " is out of memory: ", asked, " bytes asked for, ", bytes_, " in use"));
    }
  }
}

void LimitedMemory::release(void* block, size_t bytes) noexcept {
  source_.release(block, bytes);
  std::lock_guard lock(mutex_);
  bytes_ -= static_cast<int64_t>(bytes);
}

int64_t LimitedMemory::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

int64_t LimitedMemory::peak_bytes() const {
  std::lock_guard lock(mutex_);
  return peak_;
}

void* MemoryPool::allocate(size_t bytes) {
  {
    std::lock_guard lock(mutex_);
    if (const auto found = held_.find(bytes); found != held_.end() && !found->second.empty()) {
      void* block = found->second.back();
      found->second.pop_back();
      bytes_held_ -= bytes;
      return block;
    }
  }
  try {
    return source_.allocate(bytes);
  } catch (const OutOfMemory&) {
    trim();
    return source_.allocate(bytes);
  }
}

void MemoryPool::release(void* block, size_t bytes) noexcept {
  try {
    std::lock_guard lock(mutex_);
    std::vector<void*>& blocks = held_[bytes];
    if (blocks.size() < kHeldPerSize && bytes <= max_held_ - bytes_held_) {
      blocks.push_back(block);
      bytes_held_ += bytes;
      return;
    }
  } catch (const std::exception&) {  // no memory to record it
  }
  source_.release(block, bytes);
}

void MemoryPool::trim() noexcept {
  std::lock_guard lock(mutex_);
  for (const auto& [bytes, blocks] : held_) {
    for (void* block : blocks) source_.release(block, bytes);
  }
  held_.clear();
  bytes_held_ = 0;
}

size_t MemoryPool::bytes_held() const {
  std::lock_guard lock(mutex_);
  return bytes_held_;
}

}  // namespace gptq
