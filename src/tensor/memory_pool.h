// Memory with a limit, and a pool that reuses released blocks: a forward pass requests the same few sizes thousands of
// times, and fresh pages from the operating system cost more than the arithmetic on small matrices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tensor/matrix.h"

namespace gptq {

// Counts the bytes taken from `source` and refuses requests beyond `limit` bytes (0: no limit).
class LimitedMemory final : public Memory {
 public:
  // `source` must outlive it. `name` is the device's, for errors.
  LimitedMemory(Memory& source, std::string name, int64_t limit)
      : source_(source), name_(std::move(name)), limit_(limit) {}
  // `reclaim` runs, on any thread, before a request is refused: it may release cached blocks.
  void on_shortage(std::function<void()> reclaim) { reclaim_ = std::move(reclaim); }

  // Throws OutOfMemory with the device, the bytes requested, in use and the limit.
  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;

  int64_t bytes() const;       // in use now
  int64_t peak_bytes() const;  // peak in use
  int64_t limit() const { return limit_; }

 private:
  bool take(int64_t bytes);

  Memory& source_;
  const std::string name_;
  const int64_t limit_;
  std::function<void()> reclaim_;
  mutable std::mutex mutex_;
  int64_t bytes_ = 0, peak_ = 0;
};

class MemoryPool final : public Memory {
 public:
  // `source` must outlive the pool.
  explicit MemoryPool(Memory& source, size_t max_held = kMaxHeld) : source_(source), max_held_(max_held) {}
  ~MemoryPool() override { trim(); }
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  // If the source has no room, trims the pool and asks again.
  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;

  // Returns all cached blocks to the source.
  void trim() noexcept;
  size_t bytes_held() const;  // cached for reuse

  // Cached bytes at most: larger blocks are rare, and the work on them outweighs the cost of fresh pages.
  static constexpr size_t kMaxHeld = size_t{256} << 20;

 private:
  // Cached blocks of one size at most: enough for the temporaries of a step, while states that are dropped in bulk go
  // back at once.
  static constexpr size_t kHeldPerSize = 4;

  Memory& source_;
  const size_t max_held_;
  mutable std::mutex mutex_;
  std::map<size_t, std::vector<void*>> held_;
  size_t bytes_held_ = 0;
};

}  // namespace gptq
