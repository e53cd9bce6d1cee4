// The GPTQ format, both versions: qweight I32 [in * bits / 32, out], qzeros I32 [groups, out * bits / 32], scales F16
// [groups, out], g_idx I32 [in]. Reference: https://garden.danieldk.eu/GPTQ-Checkpoint-Format, and the loaders of
// AutoGPTQ, GPTQModel, vLLM and ExLlamaV2.
#include <map>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "format/huggingface.h"
#include "format/loaders.h"
#include "format/stored.h"
#include "io/pack.h"
#include "io/quantization_entry.h"
#include "recipe/recipe_file.h"

namespace gptq {
namespace {

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

// Version 1 stores zeros less one, version 2 as they are.
class GptqFormat final : public HuggingFaceFormat {
 public:
  explicit GptqFormat(int version) : version_(version) {}

  std::string_view name() const override { return version_ == 1 ? "gptq" : "gptq_v2"; }
  std::string_view method() const override { return "gptq"; }
  bool holds_zeros() const override { return version_ == 2; }

  void check(const ResolvedRecipe& recipe) const override {
    if (recipe.sym || holds_zeros()) return;
    throw option_error("sym=false",
                       " with `checkpoint_format` gptq: its stored zero - 1 is read differently by different loaders "
                       "when a zero is 0; use gptq_v2");
  }

  std::vector<TensorSpec> tensors(const LinearSpec& linear, const ResolvedRecipe& recipe) const override {
    const int64_t in = linear.in_features, out = linear.out_features, groups = groups_of(linear, recipe);
    return {{linear.name + ".qweight", "I32", {in * recipe.bits / 32, out}},
            {linear.name + ".qzeros", "I32", {groups, out * recipe.bits / 32}},
            {linear.name + ".scales", "F16", {groups, out}},
            {linear.name + ".g_idx", "I32", {in}}};
  }

  EncodedLinear encode(const FetchedLinear& linear, const ResolvedRecipe& /*recipe*/) const override {
    const int64_t out = linear.scales.rows(), groups = linear.scales.cols();
    const int mask = (1 << linear.bits) - 1;
    std::vector<uint8_t> zeros = transposed<uint8_t>(elements<uint8_t>(linear.zeros), out, groups);
    for (uint8_t& zero : zeros) zero = static_cast<uint8_t>((zero - zero_offset()) & mask);
    std::vector<uint16_t> scales(static_cast<size_t>(out * groups));
    for (int64_t r = 0; r < out; ++r) {
      for (int64_t g = 0; g < groups; ++g) scales[g * out + r] = Half(linear.scales.row<float>(r)[g]).bits;
    }
    return {{"qweight", elements<uint32_t>(linear.words)},
            {"qzeros", pack_cols(zeros, groups, out, linear.bits)},
            {"scales", std::move(scales)},
            {"g_idx", linear.g_idx}};
  }

  int64_t encoding_bytes(const LinearSpec& linear, const ResolvedRecipe& recipe) const override {
    const int64_t grid = linear.out_features * groups_of(linear, recipe);
    // Zeros transposed and packed, scales in fp16; g_idx as fetched and as packed.
    return grid + grid * recipe.bits / 8 + grid * 2 + 2 * linear.in_features * 4;
  }

  Json config(const OutputRecord& record) const override {
    const Recipe& recipe = record.recipe;
    const std::string format(name());
    Json config = {{"quant_method", "gptq"},
                   {"method", "gptq"},
                   {"checkpoint_format", format},
                   {"format", format},
                   {"bits", recipe.bits},
                   {"group_size", *resolve(recipe).group_size},
                   {"sym", recipe.sym},
                   {"desc_act", recipe.desc_act},
                   {"lm_head", recipe.lm_head},
                   {"pack_dtype", "int32"},
                   {"true_sequential", recipe.true_sequential},
                   {"damp_percent", recipe.damp_percent},
                   {"static_groups", recipe.static_groups}};
    if (!recipe.modules_in_block_to_quantize.empty()) {
      config["modules_in_block_to_quantize"] = recipe.modules_in_block_to_quantize;
    }
    if (!recipe.dynamic.empty()) config["dynamic"] = to_json(recipe.dynamic);
    config["meta"] = recipe_record(recipe);
    return config;
  }

  bool has_config_file() const override { return true; }

  const Parts& parts() const override { return parts_; }

  bool recognizes(const Json& config) const override {
    const std::string format = checkpoint_format_of(config);
    return format.empty() ? name() == "gptq" : format == name();
  }

  QuantizationConfig parse(const Json& config, const std::string& where) const override {
    QuantizationConfig result;
    try {
      result.bits = static_cast<int>(whole_number(config, "bits", 1, 16, where));
      result.group_size = whole_number(config, "group_size", -1, kMostGroupSize, where);
      result.sym = config.value("sym", true);
      result.desc_act = config.value("desc_act", false);
    } catch (const nlohmann::json::exception&) {
      throw InputError(
          cat(where,
              ": quantization_config needs the numbers bits and group_size, and true or false for sym and desc_act"));
    }
    if (const auto dynamic = config.find("dynamic"); dynamic != config.end())
      result.dynamic = parse_rules(*dynamic, cat(where, ": dynamic"), true);
    result.format = this;
    return result;
  }

  Sizes sizes(const StoredTensor& codes, const StoredTensor& scales, const LinearSpec& linear) const override {
    return sizes_along(0, codes, scales, linear);
  }

  HostLinear read(const Checkpoint& checkpoint, const LinearSpec& spec,
                  const QuantizationConfig& /*config*/) const override {
    const int64_t in = spec.in_features, out = spec.out_features;
    const StoredTensor& qweight = checkpoint.tensor(spec.name + ".qweight");
    const StoredTensor& scales = checkpoint.tensor(spec.name + ".scales");
    // Modules may differ in bits ("dynamic"): the shapes say which.
    const int bits = qweight.shape.size() == 2 && in > 0 ? static_cast<int>(qweight.shape[0] * 32 / in) : 0;
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8) {
      throw tensor_error(checkpoint.folder(), spec.name, spec.name, ".qweight has shape ", shape_string(qweight.shape),
                         ", which is no 2, 3, 4 or 8 bit packing of ", in, " inputs");
    }
    checked(checkpoint, spec.name + ".qweight", {"I32"}, {in * bits / 32, out});
    const int64_t groups = scales.shape.empty() ? 0 : scales.shape[0];
    checked(checkpoint, spec.name + ".scales", {"F16", "BF16", "F32"}, {groups, out});
    const StoredTensor& qzeros = checked(checkpoint, spec.name + ".qzeros", {"I32"}, {groups, out * bits / 32});

    std::vector<int32_t> g_idx = read_g_idx(checkpoint, spec, groups);
    std::vector<uint8_t> zeros = unpack_cols(elements<uint32_t>(checkpoint, qzeros), groups, out, bits);
    const int mask = (1 << bits) - 1;
    for (uint8_t& zero : zeros) zero = static_cast<uint8_t>((zero + zero_offset()) & mask);

    return {.rows = out,
            .groups = groups,
            .bits = bits,
            .words = checkpoint.load(qweight),
            .zeros = transposed<uint8_t>(zeros, groups, out),
            .scales = transposed<float>(load_scales(checkpoint, scales), groups, out),
            .g_idx = std::move(g_idx)};
  }

  std::vector<LoaderVerdict> loaders(const std::vector<StoredLinear>& linears) const override {
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
    if (version_ == 2 && !any_with(linears, is_asymmetric))
      remark(verdicts[1],
             "some GPTQModel versions refuse symmetric gptq_v2 in their Marlin kernel; gptq loads everywhere");
    return verdicts;
  }

 private:
  int zero_offset() const { return version_ == 1 ? 1 : 0; }

  // As stored, or in order where there is none.
  static std::vector<int32_t> read_g_idx(const Checkpoint& checkpoint, const LinearSpec& spec, int64_t groups) {
    const int64_t in = spec.in_features;
    std::vector<int32_t> g_idx(static_cast<size_t>(in));
    if (checkpoint.has(spec.name + ".g_idx")) {
      g_idx = elements<int32_t>(checkpoint, checked(checkpoint, spec.name + ".g_idx", {"I32"}, {in}));
    } else {
      const int64_t group_size = groups > 0 ? (in + groups - 1) / groups : in;
      for (int64_t k = 0; k < in; ++k) g_idx[k] = static_cast<int32_t>(k / group_size);
    }
    for (const int32_t group : g_idx) {
      if (group < 0 || group >= groups) {
        throw tensor_error(checkpoint.folder(), spec.name, spec.name, ".g_idx names group ", group, " of ", groups);
      }
    }
    return g_idx;
  }

  const int version_;
  const Parts parts_{"qweight", "scales", {"qzeros", "g_idx"}};
};

}  // namespace

const Format& gptq_format() {
  static const GptqFormat format(1);
  return format;
}

const Format& gptq_v2_format() {
  static const GptqFormat format(2);
  return format;
}

}  // namespace gptq
