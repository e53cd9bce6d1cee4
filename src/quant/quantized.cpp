#include "quant/quantized.h"

namespace gptq {

void dequantize(Backend& backend, const Quantized& quantized, MatrixView weight) {
  backend.run(
      ops::Dequantize{.codes = quantized.codes, .groups = quantized.g_idx, .grid = quantized.grid(), .w = weight});
}

}  // namespace gptq
