#include "ops/pack.h"

#include <vector>

#include "ops/elements.h"

namespace gptq::ops {

void reference(const Pack& op) {
  for (int64_t row = 0; row < op.codes.rows; ++row) {
    std::vector<uint32_t> stream(static_cast<size_t>(op.words.rows));
    for (int64_t bit = 0; bit < op.codes.cols * op.bits; ++bit) {
      const uint32_t code = op.codes.row<uint8_t>(row)[bit / op.bits];
      stream[bit / 32] |= (code >> (bit % op.bits) & 1) << (bit % 32);
    }
    for (int64_t word = 0; word < op.words.rows; ++word) op.words.row<uint32_t>(word)[row] = stream[word];
  }
}

}  // namespace gptq::ops
