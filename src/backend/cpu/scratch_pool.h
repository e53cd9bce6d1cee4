// Buffers of floats that tasks borrow. Buffers are kept, so that their pages stay mapped; each thread has its own, so
// that tasks do not wait for each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "tensor/matrix.h"

namespace gptq::cpu {

class ScratchPool {
 private:
  struct alignas(64) Slot {
    std::mutex mutex;
    std::vector<Matrix> free;  // of one row each
  };

 public:
  explicit ScratchPool(int threads) : slots_(static_cast<size_t>(threads)) {}

  class Lease {
   public:
    Lease(Slot& slot, Matrix buffer) : slot_(slot), buffer_(std::move(buffer)) {}
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    // The next `count` floats of the buffer, contents undefined, aligned to 64 bytes.
    float* take(int64_t count);
    uint32_t* take_dwords(int64_t count) { return reinterpret_cast<uint32_t*>(take(count)); }

   private:
    Slot& slot_;
    Matrix buffer_;
    int64_t used_ = 0;
  };

  // A buffer for `pieces` calls of take() whose counts add up to `count`.
  Lease borrow(int64_t count, int pieces = 1);

 private:
  std::vector<Slot> slots_;  // by ThreadPool::thread_index()
};

}  // namespace gptq::cpu
