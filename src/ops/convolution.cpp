#include "ops/convolution.h"

#include <algorithm>

#include "ops/elements.h"

namespace gptq::ops {

void reference(const CausalConvolution& op) {
  for (size_t s = 0; s + 1 < op.offsets.size(); ++s) {
    for (int64_t row = op.offsets[s]; row < op.offsets[s + 1]; ++row) {
      for (int64_t c = 0; c < op.y.cols; ++c) {
        double sum = op.bias.empty() ? 0 : load(op.bias, 0, c);
        for (int64_t back = 0; back < std::min(op.weight.cols, row - op.offsets[s] + 1); ++back)
          sum += load(op.weight, c, op.weight.cols - 1 - back) * load(op.x, row - back, c);
        store(op.y, row, c, activated(op.activation, sum));
      }
    }
  }
}

}  // namespace gptq::ops
