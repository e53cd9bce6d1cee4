#include "quant/quantized.h"

namespace gptq {

void dequantize(Backend& backend, const Quantized& quantized, MatrixView weight) {
  backend.dequantize(quantized.codes, quantized.g_idx, quantized.grid(), weight);
}

}  // namespace gptq
