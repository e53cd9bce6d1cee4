#include "tensor/nonfinite.h"

#include <algorithm>

namespace gptq {
namespace {

// Counts are kept in Words, so that a vector register holds as many counts as elements; a chunk is short enough for
// them.
template <typename Word>
int64_t count_full_exponents(ConstMatrixView values, Word exponent_mask) {
  constexpr int64_t kChunk = 32768;
  const auto* words = static_cast<const Word*>(values.data);
  int64_t total = 0;
  for (int64_t start = 0; start < values.size(); start += kChunk) {
    const int64_t end = std::min(values.size(), start + kChunk);
    Word count = 0;
    for (int64_t i = start; i < end; ++i) {
      count = static_cast<Word>(count + ((words[i] & exponent_mask) == exponent_mask ? 1 : 0));
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
