// Memory with a limit, and memory that keeps released blocks for the next request of their size: a forward pass asks
// for the same few sizes thousands of times, and fresh pages from the operating system cost more than the arithmetic on
// small matrices.
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

// Counts what is taken from `source`, and refuses what would exceed `limit` bytes (0: no limit).
class LimitedMemory final : public Memory {
 public:
  // `source` must outlive it. `name` is that of the device, for the error.
  LimitedMemory(Memory& source, std::string name, int64_t limit)
      : source_(source), name_(std::move(name)), limit_(limit) {}
  // Called, by any thread, before a request is refused: it may release what is held for later.
  void on_shortage(std::function<void()> reclaim) { reclaim_ = std::move(reclaim); }

  // Throws OutOfMemory saying the device, what was asked for, what is taken and the limit.
  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;

  int64_t bytes() const;       // taken now
  int64_t peak_bytes() const;  // most that was ever taken
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

  // Where the source has no room, all that is held is given back to it before it is asked once more.
  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;

  // Gives everything that is held for reuse back to the source.
  void trim() noexcept;
  size_t bytes_held() const;  // for reuse

  // Bytes held at most: larger blocks are rare, and the work on them outweighs fresh pages.
  static constexpr size_t kMaxHeld = size_t{256} << 20;

 private:
  // Blocks of one size held at most: as many as one step's temporaries, so states that are dropped in bulk go back at
  // once.
  static constexpr size_t kHeldPerSize = 4;

  Memory& source_;
  const size_t max_held_;
  mutable std::mutex mutex_;
  std::map<size_t, std::vector<void*>> held_;
  size_t bytes_held_ = 0;
};

}  // namespace gptq
