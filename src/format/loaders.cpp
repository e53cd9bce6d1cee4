#include "format/loaders.h"

#include <algorithm>
#include <cctype>
#include <map>

#include "base/error.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

// Why a loader refuses a linear that is stored so; empty where it does not.
using Rule = std::string (*)(const QuantizationConfig& config, const LinearSpec& linear);

// What a loader's kernels need of a linear's sizes.
std::string odd_size(const LinearSpec& linear, int64_t in_multiple, int64_t out_multiple) {
  if (linear.in_features % in_multiple == 0 && linear.out_features % out_multiple == 0) return {};
  return cat("its kernels need inputs in multiples of ", in_multiple, " and outputs in multiples of ", out_multiple,
             "; ", linear.name, " is [", linear.out_features, ", ", linear.in_features, "]");
}

bool is_one_of(int64_t value, std::initializer_list<int64_t> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

// The kernels of vLLM and SGLang for groups that are all in order.
std::string marlin(const QuantizationConfig& config, const LinearSpec& linear) {
  if (!is_one_of(config.group_size, {-1, 32, 64, 128}))
    return cat("its kernels know groups of 32, 64, 128 and -1, not ", config.group_size);
  return odd_size(linear, 32, 64);
}

std::string vllm(const QuantizationConfig& config, const LinearSpec& linear) {
  if (!config.sym) return "it takes symmetric weights only";
  if (config.bits != 4 && config.bits != 8) return cat("it takes 4 and 8 bits only, not ", config.bits);
  if (config.desc_act && config.group_size != -1) return "it refuses desc_act with groups";
  return marlin(config, linear);
}

std::string gptqmodel(const QuantizationConfig& /*config*/, const LinearSpec& linear) {
  return odd_size(linear, 32, 32);
}

std::string sglang(const QuantizationConfig& config, const LinearSpec& linear) {
  if (config.bits == 3 && !config.sym) return "3 bits asymmetric is not among its kernels";
  return odd_size(linear, 32, 32);
}

std::string exllamav2(const QuantizationConfig& config, const LinearSpec& linear) {
  if (config.bits != 4) return cat("it takes 4 bits only, not ", config.bits);
  const int64_t group_size = config.group_size;
  if (group_size != -1 && (group_size & (group_size - 1)) != 0)
    return cat("its groups are powers of two, not ", group_size);
  return odd_size(linear, 32, 32);
}

std::string anything(const QuantizationConfig& /*config*/, const LinearSpec& /*linear*/) { return {}; }

// The first reason there is; which linear it is of, where they are not all alike.
std::string first_reason(Rule rule, const std::vector<StoredLinear>& linears) {
  for (const StoredLinear& linear : linears) {
    if (!linear.config) continue;
    std::string reason = rule(*linear.config, linear.spec);
    if (reason.empty()) continue;
    const bool mixed = std::any_of(linears.begin(), linears.end(), [&](const StoredLinear& other) {
      return other.config && !(*other.config == *linear.config);
    });
    return mixed ? cat(reason, ", as in ", linear.spec.name) : reason;
  }
  return {};
}

// Linears that are fused must be stored alike.
std::string unequal_parts(const std::vector<StoredLinear>& linears) {
  std::map<std::string, const StoredLinear*> firsts;
  for (const StoredLinear& linear : linears) {
    if (linear.spec.fused.empty()) continue;
    const StoredLinear* first = firsts.emplace(linear.spec.fused, &linear).first->second;
    if (first->config == linear.config) continue;
    return cat("it loads ", first->spec.name, " and ", linear.spec.name,
               " as one module, and they are stored differently");
  }
  return {};
}

// Optimum, through which transformers loads, builds all linears of one kind alike and does not read `dynamic`.
std::string not_uniform(const std::vector<StoredLinear>& linears) {
  std::map<std::string, const StoredLinear*> firsts;
  const StoredLinear* first = nullptr;
  for (const StoredLinear& linear : linears) {
    const StoredLinear* same_kind = firsts.emplace(name_in_any_block(linear.spec.name), &linear).first->second;
    if (!linear.config == !same_kind->config) {
      if (!linear.config) continue;
      if (first == nullptr) first = &linear;
      const QuantizationConfig &a = *first->config, &b = *linear.config;
      if (a.bits == b.bits && a.group_size == b.group_size && a.sym == b.sym) continue;
    }
    return cat("Optimum 2.3 does not read rules for single modules, as for ", linear.spec.name,
               "; GPTQModel.load() reads them");
  }
  return {};
}

bool any_with(const std::vector<StoredLinear>& linears, bool (*is_so)(const QuantizationConfig& config)) {
  return std::any_of(linears.begin(), linears.end(),
                     [&](const StoredLinear& linear) { return linear.config && is_so(*linear.config); });
}

bool has_signed_four_bits(const QuantizationConfig& config) { return config.signed_scales && config.bits == 4; }
bool is_asymmetric(const QuantizationConfig& config) { return !config.sym; }
bool is_asymmetric_eight_bits(const QuantizationConfig& config) { return !config.sym && config.bits == 8; }

constexpr const char* kInt8Remark =
    "not with VLLM_MARLIN_INPUT_DTYPE=int8, which takes negative scales for unsigned ones (vLLM issue 48905)";

// Adds a remark to a verdict that accepts.
void remark(LoaderVerdict& verdict, const char* text) {
  if (verdict.accepts) verdict.reason = text;
}

LoaderVerdict verdict_of(const char* loader, Rule rule, bool fuses, const std::vector<StoredLinear>& linears) {
  std::string reason = first_reason(rule, linears);
  if (reason.empty() && fuses) reason = unequal_parts(linears);
  const bool accepts = reason.empty();
  return {loader, std::move(reason), accepts};
}

std::vector<LoaderVerdict> compressed_tensors_verdicts(const std::vector<StoredLinear>& linears) {
  const char* only_gptq = "it reads the GPTQ format; write that one with --checkpoint-format gptq";
  std::vector<LoaderVerdict> verdicts = {
      verdict_of("transformers + compressed-tensors", anything, false, linears),
      verdict_of("vLLM", marlin, true, linears),
      verdict_of("SGLang", marlin, true, linears),
      {"GPTQModel", only_gptq, false},
      {"ExLlamaV2", only_gptq, false},
  };
  if (any_with(linears, is_asymmetric))
    remark(verdicts[0], "zero points only with CompressedTensorsConfig(dequantize=True), in transformers 5.23");
  if (any_with(linears, has_signed_four_bits)) remark(verdicts[1], kInt8Remark);
  if (any_with(linears, is_asymmetric_eight_bits)) {
    for (const size_t i : {1U, 2U})
      remark(verdicts[i], "asymmetric 8 bits are not in its Marlin kernel: only where another one is, such as Machete");
  }
  return verdicts;
}

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

void refuse_for_loader(const std::string& loader, const std::vector<LoaderVerdict>& verdicts) {
  const std::string word = lower_case(loader);
  for (const char* known : {"vllm", "sglang", "transformers", "gptqmodel", "exllamav2"}) {
    if (word != known) continue;
    for (const LoaderVerdict& verdict : verdicts) {
      if (lower_case(verdict.loader).find(word) == std::string::npos) continue;
      if (verdict.accepts) return;
      throw InputError(cat("--for ", loader, ": ", verdict.reason));
    }
    throw InputError(cat("--for ", loader, ": it does not read this format; try another --checkpoint-format"));
  }
  throw InputError(cat("--for ", loader, ": there are vllm, sglang, transformers, gptqmodel and exllamav2"));
}

std::vector<LoaderVerdict> loader_verdicts(CheckpointFormat format, const std::vector<StoredLinear>& linears) {
  if (format == CheckpointFormat::compressed_tensors) return compressed_tensors_verdicts(linears);
  std::vector<LoaderVerdict> verdicts = {
      verdict_of("transformers + Optimum", gptqmodel, false, linears),
      verdict_of("GPTQModel", gptqmodel, false, linears),
      verdict_of("vLLM", vllm, true, linears),
      verdict_of("SGLang", sglang, true, linears),
      verdict_of("ExLlamaV2", exllamav2, false, linears),
  };
  if (std::string reason = not_uniform(linears); verdicts[0].accepts && !reason.empty())
    verdicts[0] = {"transformers + Optimum", std::move(reason), false};
  if (any_with(linears, has_signed_four_bits)) remark(verdicts[2], kInt8Remark);
  if (format == CheckpointFormat::gptq_v2 && !any_with(linears, is_asymmetric))
    remark(verdicts[1],
           "some GPTQModel versions refuse symmetric gptq_v2 in their Marlin kernel; gptq loads everywhere");
  return verdicts;
}

std::vector<LoaderVerdict> loader_verdicts(CheckpointFormat format, const std::vector<StoredLinear>& linears,
                                           const ModelConfig& config) {
  std::vector<LoaderVerdict> verdicts = loader_verdicts(format, linears);
  const auto refuse = [&](std::string_view loader, const std::string& reason) {
    for (LoaderVerdict& verdict : verdicts) {
      if (!verdict.loader.starts_with(loader)) continue;
      verdict.accepts = false;
      verdict.reason = reason;
    }
  };
  if (config.experts.count > 0) {
    refuse("transformers",
           "transformers 5 holds a block's experts as one tensor, which no quantized linear replaces; GPTQModel.load() "
           "takes "
           "them apart");
  }
  for (const Lack& lack : config.architecture->lacking) {
    refuse(lack.loader, lack.reason.empty() ? cat(lack.loader, " has no model_type ", config.model_type, " of its own")
                                            : std::string(lack.reason));
  }
  return verdicts;
}

}  // namespace gptq
