#include "tensor/matrix.h"

#include <algorithm>
#include <cstdlib>

#include <sys/mman.h>

#include "base/error.h"

namespace gptq {
namespace {

// Blocks from this size on are mapped by themselves, so that releasing one gives its pages back at once: a heap would
// keep them, and the states of a calibration run would count twice.
constexpr size_t kMapped = size_t{1} << 20;

class HostMemory final : public Memory {
 public:
  void* allocate(size_t bytes) override {
    constexpr size_t kAlignment = 64;
    const size_t rounded = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
    void* block = nullptr;
    if (bytes < kMapped) {
      block = std::aligned_alloc(kAlignment, rounded);
    } else if (void* map = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
               map != MAP_FAILED) {
      block = map;
    }
    if (block == nullptr) throw OutOfMemory(cat("out of host memory: ", bytes, " bytes asked for"));
    return block;
  }
  void release(void* block, size_t bytes) noexcept override {
    bytes < kMapped ? std::free(block) : static_cast<void>(munmap(block, bytes));
  }
};

}  // namespace

Memory& host_memory() {
  static HostMemory memory;
  return memory;
}

}  // namespace gptq
