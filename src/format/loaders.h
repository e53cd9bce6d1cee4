// Which programs load a quantized folder, and why not: the rules of each loader as of November 2026. Sources: vLLM's
// auto_gptq.py, transformers' GPTQConfig with GPTQModel, SGLang's gptq.py, ExLlamaV2's ext.py; for compressed-tensors,
// vLLM's and SGLang's compressed_tensors_wNa16.py and marlin_utils.py.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "format/format.h"
#include "gptq/report.h"
#include "model/specs.h"

namespace gptq {

// The verdicts of the format's loaders on a model: a loader must also have its family. `linears`: all of its blocks.
std::vector<LoaderVerdict> loader_verdicts(const Format& format, const std::vector<StoredLinear>& linears,
                                           const ModelConfig& config);

// Throws InputError, with the loader's reason, where `loader` (Job::loader) is none of these or does not accept.
void refuse_for_loader(const std::string& loader, const std::vector<LoaderVerdict>& verdicts);

// Rules that formats share (Format::loaders()).

// A loader's reason to refuse a linear that is stored like this; empty where it accepts.
using LoaderRule = std::string (*)(const QuantizationConfig& config, const LinearSpec& linear);

// The first reason of all linears. fuses: the loader needs the parts of a fused module to be stored alike.
LoaderVerdict verdict_of(const char* loader, LoaderRule rule, bool fuses, const std::vector<StoredLinear>& linears);
// Adds a remark to a verdict that accepts.
void remark(LoaderVerdict& verdict, const char* text);

// A reason where a linear's sizes are no multiples of these.
std::string odd_size(const LinearSpec& linear, int64_t in_multiple, int64_t out_multiple);
bool is_one_of(int64_t value, std::initializer_list<int64_t> values);
// The kernels of vLLM and SGLang for groups that are all in order.
std::string marlin(const QuantizationConfig& config, const LinearSpec& linear);

bool any_with(const std::vector<StoredLinear>& linears, bool (*is_so)(const QuantizationConfig& config));
bool has_signed_four_bits(const QuantizationConfig& config);
bool is_asymmetric(const QuantizationConfig& config);

inline constexpr const char* kInt8Remark =
    "not with VLLM_MARLIN_INPUT_DTYPE=int8, which takes negative scales for unsigned ones (vLLM issue 48905)";

}  // namespace gptq
