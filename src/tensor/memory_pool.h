// Memory that keeps released blocks for the next request of their size: a forward pass asks for the same few sizes
// thousands of times, and fresh pages from the operating system cost more than the arithmetic on small matrices.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <vector>

#include "tensor/matrix.h"

namespace gptq {

class MemoryPool final : public Memory {
 public:
  // `source` must outlive the pool.
  explicit MemoryPool(Memory& source) : source_(source) {}
  ~MemoryPool() override { trim(); }
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  void* allocate(size_t bytes) override;
  void release(void* block, size_t bytes) noexcept override;

  // Gives everything that is held for reuse back to the source.
  void trim() noexcept;
  size_t bytes_held() const;  // for reuse

 private:
  // Blocks of one size held at most: as many as one step's temporaries, so states that are dropped in bulk go back at
  // once.
  static constexpr size_t kHeldPerSize = 4;

  Memory& source_;
  mutable std::mutex mutex_;
  std::map<size_t, std::vector<void*>> held_;
};

}  // namespace gptq
