#include "tensor/matrix.h"

#include <cstdlib>

#include "base/error.h"

namespace gptq {
namespace {

class HostMemory final : public Memory {
 public:
  void* allocate(size_t bytes) override {
    constexpr size_t kAlignment = 64;
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    void* block = std::aligned_alloc(kAlignment, rounded == 0 ? kAlignment : rounded);
    if (block == nullptr) throw DeviceError(cat("out of host memory: ", bytes, " bytes asked for"));
    return block;
  }
  void release(void* block, size_t /*bytes*/) noexcept override { std::free(block); }
};

}  // namespace

Memory& host_memory() {
  static HostMemory memory;
  return memory;
}

}  // namespace gptq
