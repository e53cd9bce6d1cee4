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

void reference(const Unpack& op) {
  for (int64_t row = 0; row < op.codes.rows; ++row) {
    for (int64_t col = 0; col < op.codes.cols; ++col) {
      uint32_t code = 0;
      for (int64_t bit = 0; bit < op.bits; ++bit) {
        const int64_t at = col * op.bits + bit;
        code |= (op.words.row<uint32_t>(at / 32)[row] >> (at % 32) & 1) << bit;
      }
      op.codes.row<uint8_t>(row)[col] = static_cast<uint8_t>(code);
    }
  }
}

}  // namespace gptq::ops
