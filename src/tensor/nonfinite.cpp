#include "tensor/nonfinite.h"

#include <algorithm>

namespace gptq {
namespace {

// Counts elements whose exponent bits are all ones. Counters have the elements' width, so that the loop is vectorized;
// a chunk is short enough for them not to overflow.
template <typename Bits>
int64_t count_full_exponents(ConstMatrixView values, Bits exponent_mask) {
  constexpr int64_t kChunk = 32768;
  const auto* bits = static_cast<const Bits*>(values.data);
  int64_t total = 0;
  for (int64_t start = 0; start < values.size(); start += kChunk) {
    const int64_t end = std::min(values.size(), start + kChunk);
    Bits count = 0;
    for (int64_t i = start; i < end; ++i) {
      count = static_cast<Bits>(count + ((bits[i] & exponent_mask) == exponent_mask ? 1 : 0));
    }
    total += count;
  }
  return total;
}

}  // namespace

// NaN and infinity are the values whose exponent bits are all ones.
int64_t count_nonfinite(ConstMatrixView values) {
  if (values.dtype == DType::f32) return count_full_exponents<uint32_t>(values, 0x7f800000U);
  if (values.dtype == DType::f16) return count_full_exponents<uint16_t>(values, 0x7c00U);
  if (values.dtype == DType::bf16) return count_full_exponents<uint16_t>(values, 0x7f80U);
  return 0;
}

}  // namespace gptq
