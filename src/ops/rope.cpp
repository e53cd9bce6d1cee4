#include "ops/rope.h"

#include "ops/elements.h"

namespace gptq::ops {

void reference(const Rope& op) {
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) {
    for (int64_t row = op.offsets[s]; row < op.offsets[s + 1]; ++row) {
      const int64_t position = row - op.offsets[s];
      for (int64_t head = 0; head < op.x.cols; head += op.head_dim) {
        for (int64_t i = 0; i < op.cos.cols; ++i) {
          const double c = load(op.cos, position, i), sn = load(op.sin, position, i);
          const bool halves = op.order == RotaryOrder::halves;
          const int64_t first = head + (halves ? i : 2 * i), second = first + (halves ? op.cos.cols : 1);
          const double a = load(op.x, row, first), b = load(op.x, row, second);
          store(op.x, row, first, a * c - b * sn);
          store(op.x, row, second, b * c + a * sn);
        }
      }
    }
  }
}

}  // namespace gptq::ops
