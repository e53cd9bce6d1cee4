#include "format/loaders.h"

#include <algorithm>
#include <cctype>
#include <map>

#include "base/error.h"

namespace gptq {
namespace {

// The first reason there is; with its linear, where they are not all stored alike.
std::string first_reason(LoaderRule rule, const std::vector<StoredLinear>& linears) {
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

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

std::vector<LoaderVerdict> loader_verdicts(const Format& format, const std::vector<StoredLinear>& linears,
                                           const ModelConfig& config) {
  std::vector<LoaderVerdict> verdicts = format.loaders(linears);
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
           "takes them apart");
  }
  for (const Lack& lack : config.architecture->lacking) {
    refuse(lack.loader, lack.reason.empty() ? cat(lack.loader, " has no model_type ", config.model_type, " of its own")
                                            : std::string(lack.reason));
  }
  return verdicts;
}

void refuse_for_loader(const std::string& loader, const std::vector<LoaderVerdict>& verdicts) {
  const std::string word = lower_case(loader);
  for (const char* known : {"vllm", "sglang", "transformers", "gptqmodel", "exllamav2"}) {
    if (word != known) continue;
    for (const LoaderVerdict& verdict : verdicts) {
      if (lower_case(verdict.loader).find(word) == std::string::npos) continue;
      if (verdict.accepts) return;
      throw option_error("loader", " ", loader, ": ", verdict.reason);
    }
    throw option_error("loader", " ", loader, ": it does not read this format; try another `checkpoint_format`");
  }
  throw option_error("loader", " ", loader, ": there are vllm, sglang, transformers, gptqmodel and exllamav2");
}

LoaderVerdict verdict_of(const char* loader, LoaderRule rule, bool fuses, const std::vector<StoredLinear>& linears) {
  std::string reason = first_reason(rule, linears);
  if (reason.empty() && fuses) reason = unequal_parts(linears);
  const bool accepts = reason.empty();
  return {loader, std::move(reason), accepts};
}

void remark(LoaderVerdict& verdict, const char* text) {
  if (verdict.accepts) verdict.reason = text;
}

std::string odd_size(const LinearSpec& linear, int64_t in_multiple, int64_t out_multiple) {
  if (linear.in_features % in_multiple == 0 && linear.out_features % out_multiple == 0) return {};
  return cat("its kernels need inputs in multiples of ", in_multiple, " and outputs in multiples of ", out_multiple,
             "; ", linear.name, " is [", linear.out_features, ", ", linear.in_features, "]");
}

bool is_one_of(int64_t value, std::initializer_list<int64_t> values) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

std::string marlin(const QuantizationConfig& config, const LinearSpec& linear) {
  if (!is_one_of(config.group_size, {-1, 32, 64, 128}))
    return cat("its kernels know groups of 32, 64, 128 and -1, not ", config.group_size);
  return odd_size(linear, 32, 64);
}

bool any_with(const std::vector<StoredLinear>& linears, bool (*is_so)(const QuantizationConfig& config)) {
  return std::any_of(linears.begin(), linears.end(),
                     [&](const StoredLinear& linear) { return linear.config && is_so(*linear.config); });
}

bool has_signed_four_bits(const QuantizationConfig& config) { return config.signed_scales && config.bits == 4; }
bool is_asymmetric(const QuantizationConfig& config) { return !config.sym; }

}  // namespace gptq
