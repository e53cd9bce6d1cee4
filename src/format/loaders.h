// Which programs load a quantized folder, and why not: the rules of each loader as of November 2026.
#pragma once

#include <optional>
#include <vector>

#include "format/format.h"
#include "gptq/gptq.h"
#include "model/specs.h"

namespace gptq {

// A linear and how it is stored; `config` is empty for one that is not quantized.
struct StoredLinear {
  LinearSpec spec;
  std::optional<QuantizationConfig> config;
};

// Throws InputError, with the loader's reason, where `loader` (Job::loader) is none of these or does not accept.
void refuse_for_loader(const std::string& loader, const std::vector<LoaderVerdict>& verdicts);

// All linears of the model's blocks. Sources of the rules: vLLM's auto_gptq.py, transformers' GPTQConfig with
// GPTQModel, SGLang's gptq.py, ExLlamaV2's ext.py; for compressed-tensors, vLLM's and SGLang's
// compressed_tensors_wNa16.py and marlin_utils.py.
std::vector<LoaderVerdict> loader_verdicts(CheckpointFormat format, const std::vector<StoredLinear>& linears);
// The same of a model: a loader must also have its family.
std::vector<LoaderVerdict> loader_verdicts(CheckpointFormat format, const std::vector<StoredLinear>& linears,
                                           const ModelConfig& config);

}  // namespace gptq
