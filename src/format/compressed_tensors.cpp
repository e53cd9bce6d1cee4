// The pack-quantized format of the compressed-tensors library (vLLM, llm-compressor): the codes and grid of GPTQ, each
// transposed. weight_packed I32 [out, in * bits / 32], one stream of codes a row; weight_scale F16 [out, groups];
// weight_shape I64 [2]: out, in; with zeros of their own weight_zero_point I32 [out * bits / 32, groups], one stream a
// column. The library's codes and zeros are signed and stored plus 2^(bits - 1): those of GPTQ as they are. Groups are
// of neighbouring inputs: there is no g_idx.
//
// Scales stay in the fp16 that the columns were quantized against. Loaders convert them to the model's dtype; a file
// of bf16 scales would spare them that and lose three bits for all.
#include <algorithm>
#include <optional>

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

constexpr const char* kPacked = "pack-quantized";

bool is_known(int bits) { return bits == 4 || bits == 8; }

// [rows, words] -> [words, rows]
Matrix transposed_words(const std::vector<int32_t>& words, int64_t rows, int64_t width) {
  const std::vector<int32_t> turned = transposed<int32_t>(words, rows, width);
  Matrix matrix(host_memory(), DType::i32, width, rows);
  std::copy(turned.begin(), turned.end(), matrix.row<int32_t>(0));
  return matrix;
}

// Whether `config` has something under `key` that is not null, {} or [].
bool says(const Json& config, const char* key) {
  const auto found = config.find(key);
  return found != config.end() && !found->is_null() && !found->empty();
}

// The weights of a config_group, for this recipe.
Json weights_of(const ResolvedRecipe& recipe) {
  const bool channel = recipe.group_size == -1;
  return {{"num_bits", recipe.bits},
          {"type", "int"},
          {"symmetric", recipe.sym},
          {"strategy", channel ? "channel" : "group"},
          {"group_size", channel ? Json() : Json(*recipe.group_size)},
          {"dynamic", false},
          {"actorder", nullptr},
          {"observer", "minmax"}};
}

std::string anything(const QuantizationConfig& /*config*/, const LinearSpec& /*linear*/) { return {}; }
bool is_asymmetric_eight_bits(const QuantizationConfig& config) { return !config.sym && config.bits == 8; }

Json config_groups_of(const OutputRecord& record) {
  const std::vector<QuantizedLinear>& linears = record.quantized;
  // One group a scheme. Where there are several, each names its linears, and what vLLM fuses of them: "Linear" would
  // come before such a name there.
  std::vector<std::pair<Json, Json>> groups;  // weights, targets
  for (const QuantizedLinear& linear : linears) {
    const Json weights = weights_of(linear.recipe);
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& other) { return other.first == weights; });
    if (group == groups.end()) {
      groups.emplace_back(weights, Json::array());
      group = groups.end() - 1;
    }
    for (const std::string& name : {linear.spec.name, linear.spec.fused}) {
      const bool known =
          name.empty() || std::find(group->second.begin(), group->second.end(), name) != group->second.end();
      if (!known) group->second.push_back(name);
    }
  }
  if (groups.size() < 2) {
    groups.clear();
    groups.emplace_back(weights_of(linears.empty() ? resolve(record.recipe) : linears[0].recipe),
                        Json::array({"Linear"}));
  }
  Json config_groups = Json::object();
  for (size_t i = 0; i < groups.size(); ++i) {
    config_groups[cat("group_", i)] = {{"targets", groups[i].second},
                                       {"weights", groups[i].first},
                                       {"input_activations", nullptr},
                                       {"output_activations", nullptr}};
  }
  return config_groups;
}

// The weights of a config_group; `fail` throws.
template <typename Fail>
QuantizationConfig parse_weights(const Json& weights, const std::string& where, const Fail& fail) {
  QuantizationConfig result;
  result.bits = static_cast<int>(whole_number(weights, "num_bits", 1, 16, where));
  result.sym = weights.value("symmetric", true);
  if (const std::string type = weights.value("type", std::string("int")); type != "int" || !is_known(result.bits))
    fail(cat("with weights of ", result.bits, " bits, type ", type, ", is not read; int of 4 and 8 bits is"));
  const std::string strategy = weights.at("strategy").get<std::string>();
  if (strategy != "group" && strategy != "channel")
    fail(cat("with strategy '", strategy, "' is not read; group and channel are"));
  result.group_size = strategy == "channel" ? -1 : whole_number(weights, "group_size", 1, kMostGroupSize, where);
  const auto order = weights.find("actorder");
  if (order != weights.end() && (*order == Json(true) || *order == "group" || *order == "dynamic"))
    fail("with actorder group is not read: its groups are shuffled");
  return result;
}

class CompressedTensorsFormat final : public HuggingFaceFormat {
 public:
  std::string_view name() const override { return "compressed-tensors"; }
  std::string_view method() const override { return "compressed-tensors"; }
  bool holds_zeros() const override { return true; }

  void check(const ResolvedRecipe& recipe) const override {
    if (!is_known(recipe.bits)) {
      throw option_error("checkpoint_format", " compressed-tensors with `bits` ", recipe.bits,
                         ": its loaders take 4 and 8; use gptq for 2 and 3");
    }
    if (recipe.desc_act) {
      throw option_error("checkpoint_format",
                         " compressed-tensors with `desc_act`: the format has no g_idx for shuffled groups; drop "
                         "`desc_act` (`order` diagonal, the default, is the same order) or use gptq");
    }
  }

  std::vector<TensorSpec> tensors(const LinearSpec& linear, const ResolvedRecipe& recipe) const override {
    const int64_t in = linear.in_features, out = linear.out_features, groups = groups_of(linear, recipe);
    std::vector<TensorSpec> specs = {{linear.name + ".weight_packed", "I32", {out, in * recipe.bits / 32}},
                                     {linear.name + ".weight_scale", "F16", {out, groups}},
                                     {linear.name + ".weight_shape", "I64", {2}}};
    if (!recipe.sym) specs.push_back({linear.name + ".weight_zero_point", "I32", {out * recipe.bits / 32, groups}});
    return specs;
  }

  EncodedLinear encode(const FetchedLinear& linear, const ResolvedRecipe& recipe) const override {
    const int64_t out = linear.scales.rows(), groups = linear.scales.cols();
    const int64_t in = linear.words.rows() * 32 / linear.bits;
    std::vector<uint16_t> scales;
    scales.reserve(static_cast<size_t>(out * groups));
    for (const float scale : elements<float>(linear.scales)) scales.push_back(Half(scale).bits);
    EncodedLinear packed;
    packed.push_back(
        {"weight_packed", transposed<uint32_t>(elements<uint32_t>(linear.words), linear.words.rows(), out)});
    packed.push_back({"weight_scale", std::move(scales)});
    packed.push_back({"weight_shape", std::vector<int64_t>{out, in}});
    if (!recipe.sym) {
      const std::vector<uint8_t> zeros = transposed<uint8_t>(elements<uint8_t>(linear.zeros), out, groups);
      packed.push_back({"weight_zero_point", transposed<uint32_t>(pack_cols(zeros, groups, out, linear.bits), groups,
                                                                  out * linear.bits / 32)});
    }
    return packed;
  }

  int64_t encoding_bytes(const LinearSpec& linear, const ResolvedRecipe& recipe) const override {
    const int64_t grid = linear.out_features * groups_of(linear, recipe);
    const int64_t codes = linear.out_features * linear.in_features * recipe.bits / 8;
    // Codes transposed, scales in fp16, the shape; zeros transposed, packed and transposed again; g_idx as fetched.
    return codes + grid * 2 + 16 + (recipe.sym ? 0 : grid + 2 * grid * recipe.bits / 8) + linear.in_features * 4;
  }

  Json config(const OutputRecord& record) const override {
    return {{"quant_method", "compressed-tensors"}, {"format", kPacked},
            {"quantization_status", "compressed"},  {"config_groups", config_groups_of(record)},
            {"ignore", record.unquantized},         {"kv_cache_scheme", nullptr},
            {"meta", recipe_record(record.recipe)}};
  }

  bool has_config_file() const override { return false; }

  const Parts& parts() const override { return parts_; }

  bool recognizes(const Json& config) const override {
    const std::string format = checkpoint_format_of(config);
    return format.empty() || format == kPacked;
  }

  QuantizationConfig parse(const Json& config, const std::string& where) const override {
    const auto fail = [&](const std::string& what) { throw InputError(cat(where, ": compressed-tensors ", what)); };
    try {
      for (const char* key : {"kv_cache_scheme", "transform_config"}) {
        if (says(config, key)) fail(cat("with a ", key, " is not read: it changes more than the weights"));
      }
      if (says(config, "sparsity_config") && config["sparsity_config"].value("format", std::string()) != "dense")
        fail("with a sparsity_config is not read; dense weights are");
      const Json& groups = config.at("config_groups");
      std::optional<QuantizationConfig> first;  // linears of other groups say themselves what they are
      for (const Json& group : groups) {
        for (const char* key : {"input_activations", "output_activations"}) {
          if (says(group, key)) fail(cat("with quantized ", key, " is not read; quantized weights alone are"));
        }
        const QuantizationConfig weights = parse_weights(group.at("weights"), where, fail);
        if (!first) first = weights;
        if (weights.sym != first->sym) first->sym = true;  // not all linears have zeros
      }
      if (first) {
        first->format = this;
        return *first;
      }
      fail("has no config_groups");
    } catch (const nlohmann::json::exception&) {
      fail("needs config_groups whose weights say num_bits, strategy and, for groups, group_size");
    }
    return {};
  }

  Sizes sizes(const StoredTensor& codes, const StoredTensor& scales, const LinearSpec& linear) const override {
    return sizes_along(1, codes, scales, linear);
  }

  HostLinear read(const Checkpoint& checkpoint, const LinearSpec& spec,
                  const QuantizationConfig& config) const override {
    const int64_t in = spec.in_features, out = spec.out_features;
    const auto refuse = [&](const std::string& what) {
      throw tensor_error(checkpoint.folder(), spec.name, spec.name, what);
    };
    // Linears may be of different config_groups: the shapes say which bits and groups.
    const auto [bits, group_size] =
        sizes(checkpoint.tensor(spec.name + ".weight_packed"), checkpoint.tensor(spec.name + ".weight_scale"), spec);
    if (!is_known(bits) || in * bits % 32 != 0 || out * bits % 32 != 0) {
      refuse(cat(".weight_packed has shape ", shape_string(checkpoint.tensor(spec.name + ".weight_packed").shape),
                 ", which is no packing of [", out, ", ", in, "] into whole words of 4 or 8 bits"));
    }
    const StoredTensor& packed = checked(checkpoint, spec.name + ".weight_packed", {"I32"}, {out, in * bits / 32});
    if (group_size == 0 || in % group_size != 0) {
      refuse(cat(".weight_scale has shape ", shape_string(checkpoint.tensor(spec.name + ".weight_scale").shape),
                 ", which cuts the ", in, " inputs into no equal groups"));
    }
    const int64_t groups = in / group_size;
    const StoredTensor& scales =
        checked(checkpoint, spec.name + ".weight_scale", {"F16", "BF16", "F32"}, {out, groups});
    if (checkpoint.has(spec.name + ".weight_shape")) {
      const auto shape = elements<int64_t>(checkpoint, checked(checkpoint, spec.name + ".weight_shape", {"I64"}, {2}));
      if (shape != std::vector<int64_t>{out, in}) {
        refuse(
            cat(".weight_shape says ", shape_string(shape), ", where config.json implies ", shape_string({out, in})));
      }
    }
    if (checkpoint.has(spec.name + ".weight_g_idx")) {
      refuse(".weight_g_idx shuffles groups, which compressed-tensors has given up and is not read");
    }

    HostLinear linear{.rows = out, .groups = groups, .bits = bits};
    linear.words = transposed_words(elements<int32_t>(checkpoint, packed), out, in * bits / 32);
    linear.scales = load_scales(checkpoint, scales);
    linear.zeros.assign(static_cast<size_t>(out * groups), static_cast<uint8_t>(1U << (bits - 1)));
    if (!config.sym || checkpoint.has(spec.name + ".weight_zero_point")) {
      const StoredTensor& zeros =
          checked(checkpoint, spec.name + ".weight_zero_point", {"I32"}, {out * bits / 32, groups});
      ThreadPool pool(1);
      linear.zeros = transposed<uint8_t>(unpack_streams(elements<uint32_t>(checkpoint, zeros), out, groups, bits, pool),
                                         groups, out);
    }
    for (int64_t k = 0; k < in; ++k) linear.g_idx.push_back(static_cast<int32_t>(k / group_size));
    return linear;
  }

  std::vector<LoaderVerdict> loaders(const std::vector<StoredLinear>& linears) const override {
    const char* only_gptq = "it reads the GPTQ format; write that one with `checkpoint_format` gptq";
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
        remark(verdicts[i],
               "asymmetric 8 bits are not in its Marlin kernel: only where another one is, such as Machete");
    }
    return verdicts;
  }

 private:
  const Parts parts_{"weight_packed", "weight_scale", {"weight_shape", "weight_zero_point"}};
};

}  // namespace

const Format& compressed_tensors_format() {
  static const CompressedTensorsFormat format;
  return format;
}

}  // namespace gptq
