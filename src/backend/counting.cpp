#include "backend/counting.h"

namespace gptq {

void* NoMemory::allocate(size_t bytes) {
  void* block = reinterpret_cast<void*>(next_);  // NOLINT: never accessed
  next_ += (bytes + 63) / 64 * 64 + 64;
  return block;
}

void CountingBackend::compute(const ops::OpRef& op) {
  op.visit([&]<typename Op>(const Op& typed) -> ops::ResultOf<Op> {
    if constexpr (is_composed<Op>()) {
      if (!fuses_linears_) return fall_back(op);
    }
    ++calls_[stage_][ops::call_of(typed)];
    if constexpr (!std::is_void_v<ops::ResultOf<Op>>) return Op::kExpected;
  });
}

}  // namespace gptq
