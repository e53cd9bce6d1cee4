#include "quant/loaders.h"

#include <algorithm>

#include "base/error.h"
#include "quant/recipe.h"

namespace gptq {
namespace {

// The first linear with a size that is no multiple of what a loader's kernels need, as a reason; empty where all fit.
std::string odd_size(const std::vector<LinearSpec>& linears, int64_t in_multiple, int64_t out_multiple) {
  for (const LinearSpec& linear : linears) {
    if (linear.in_features % in_multiple == 0 && linear.out_features % out_multiple == 0) continue;
    return cat("its kernels need inputs in multiples of ", in_multiple, " and outputs in multiples of ", out_multiple,
               "; ", linear.name, " is [", linear.out_features, ", ", linear.in_features, "]");
  }
  return {};
}

bool is_one_of(int64_t value, std::initializer_list<int64_t> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

// The kernels of vLLM and SGLang for groups that are all in order.
std::string marlin(const QuantizationConfig& config, const std::vector<LinearSpec>& linears) {
  if (!is_one_of(config.group_size, {-1, 32, 64, 128}))
    return cat("its kernels know groups of 32, 64, 128 and -1, not ", config.group_size);
  return odd_size(linears, 32, 64);
}

std::string vllm(const QuantizationConfig& config, const std::vector<LinearSpec>& linears) {
  if (!config.sym) return "it takes symmetric weights only";
  if (config.bits != 4 && config.bits != 8) return cat("it takes 4 and 8 bits only, not ", config.bits);
  if (config.desc_act && config.group_size != -1) return "it refuses desc_act with groups";
  return marlin(config, linears);
}

std::string transformers(const QuantizationConfig& /*config*/, const std::vector<LinearSpec>& linears) {
  return odd_size(linears, 32, 32);
}

std::string sglang(const QuantizationConfig& config, const std::vector<LinearSpec>& linears) {
  if (config.bits == 3 && !config.sym) return "3 bits asymmetric is not among its kernels";
  return odd_size(linears, 32, 32);
}

std::string exllamav2(const QuantizationConfig& config, const std::vector<LinearSpec>& linears) {
  if (config.bits != 4) return cat("it takes 4 bits only, not ", config.bits);
  const int64_t group_size = config.group_size;
  if (group_size != -1 && (group_size & (group_size - 1)) != 0)
    return cat("its groups are powers of two, not ", group_size);
  return odd_size(linears, 32, 32);
}

constexpr const char* kInt8Remark =
    "not with VLLM_MARLIN_INPUT_DTYPE=int8, which takes negative scales for unsigned ones (vLLM issue 48905)";

std::vector<LoaderVerdict> compressed_tensors_verdicts(const QuantizationConfig& config,
                                                       const std::vector<LinearSpec>& linears) {
  std::vector<LoaderVerdict> verdicts;
  const std::string reason = marlin(config, linears);
  verdicts.push_back({"transformers + compressed-tensors", "", true});
  verdicts.push_back({"vLLM", reason, reason.empty()});
  verdicts.push_back({"SGLang", reason, reason.empty()});
  const char* only_gptq = "it reads the GPTQ format; write that one with --checkpoint-format gptq";
  verdicts.push_back({"GPTQModel", only_gptq, false});
  verdicts.push_back({"ExLlamaV2", only_gptq, false});
  if (!reason.empty()) return verdicts;
  if (config.bits == 8 && !config.sym) {
    for (const size_t i : {1U, 2U})
      verdicts[i].reason = "asymmetric 8 bits are not in its Marlin kernel: only where another one is, such as Machete";
  } else if (config.signed_scales && config.bits == 4) {
    verdicts[1].reason = kInt8Remark;
  }
  return verdicts;
}

}  // namespace

std::vector<LoaderVerdict> loader_verdicts(const QuantizationConfig& config, const std::vector<LinearSpec>& linears) {
  if (config.format == CheckpointFormat::compressed_tensors) return compressed_tensors_verdicts(config, linears);
  std::vector<LoaderVerdict> verdicts;
  const auto add = [&](const char* loader, std::string reason) {
    const bool accepts = reason.empty();
    verdicts.push_back({loader, std::move(reason), accepts});
  };
  add("transformers + GPTQModel", transformers(config, linears));
  add("vLLM", vllm(config, linears));
  add("SGLang", sglang(config, linears));
  add("ExLlamaV2", exllamav2(config, linears));
  if (config.signed_scales && config.bits == 4 && verdicts[1].accepts) {
    verdicts[1].reason = kInt8Remark;
  }
  if (config.sym && config.format == CheckpointFormat::gptq_v2) {
    verdicts[0].reason =
        "some GPTQModel versions refuse symmetric gptq_v2 in their Marlin kernel; gptq loads everywhere";
  }
  return verdicts;
}

}  // namespace gptq
