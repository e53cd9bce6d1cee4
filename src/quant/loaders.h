// Which programs load a quantized folder, and why not: the rules of each loader as of November 2026.
#pragma once

#include <vector>

#include "gptq/gptq.h"
#include "model/block.h"
#include "quant/format.h"

namespace gptq {

// `linears`: the quantized linears of the model. Sources of the rules: vLLM's auto_gptq.py, transformers' GPTQConfig
// with GPTQModel, SGLang's gptq.py, ExLlamaV2's ext.py; for compressed-tensors, vLLM's and SGLang's
// compressed_tensors_wNa16.py and marlin_utils.py.
std::vector<LoaderVerdict> loader_verdicts(const QuantizationConfig& config, const std::vector<LinearSpec>& linears);

}  // namespace gptq
