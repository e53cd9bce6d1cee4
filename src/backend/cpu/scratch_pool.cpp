#include "backend/cpu/scratch_pool.h"

#include <algorithm>

#include "base/parallel.h"
#include "base/rounding.h"

namespace gptq::cpu {
namespace {

constexpr int64_t kFloatsPerLine = 16;  // 64 bytes

}  // namespace

float* ScratchPool::Lease::take(int64_t count) {
  float* start = buffer_.row<float>(0) + used_;
  used_ += rounded_up(count, kFloatsPerLine);
  return start;
}

ScratchPool::Lease ScratchPool::borrow(int64_t count, int pieces) {
  const int64_t size = rounded_up(count, kFloatsPerLine) + pieces * kFloatsPerLine;
  Slot& slot = slots_[static_cast<size_t>(ThreadPool::thread_index()) % slots_.size()];
  std::vector<Matrix>& free = slot.free;
  Matrix buffer;
  {
    std::lock_guard lock(slot.mutex);
    // The smallest that is large enough; else the largest, which a larger one then replaces.
    const auto better = [&](const Matrix& a, const Matrix& b) {
      return a.cols() >= size && b.cols() >= size ? a.cols() < b.cols() : a.cols() > b.cols();
    };
    const auto best = std::min_element(free.begin(), free.end(), better);
    if (best != free.end()) {
      std::swap(*best, free.back());
      buffer = std::move(free.back());
      free.pop_back();
    }
  }
  if (buffer.cols() < size) {
    buffer = Matrix();
    buffer = Matrix(host_memory(), DType::f32, 1, size);
  }
  return {slot, std::move(buffer)};
}

ScratchPool::Lease::~Lease() {
  std::lock_guard lock(slot_.mutex);
  slot_.free.push_back(std::move(buffer_));
}

}  // namespace gptq::cpu
