// config.json -> ModelConfig, in the spelling of old and new transformers (rope_scaling and rope_theta, or
// rope_parameters).
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/architecture.h"

namespace gptq {
namespace {

// Keys of one JSON object, read with errors that name file and key.
class Keys {
 public:
  Keys(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) throw InputError(where_ + ": not a JSON object");
  }

  InputError wrong(const std::string& key, const std::string& what) const {
    return InputError(cat(where_, ": '", key, "' ", what));
  }

  const Json* find(const std::string& key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  // A size: a whole number from 1 to a billion. Without a default the key must be there.
  int64_t size(const std::string& key, int64_t missing = 0) const {
    const Json* value = find(key);
    if (value == nullptr && missing > 0) return missing;
    if (value == nullptr) throw wrong(key, "is missing");
    if (!value->is_number_integer() || value->get<double>() < 1 || value->get<double>() > 1e9) {
      throw wrong(key, cat("is ", value->dump(), ", where a whole number from 1 to 1000000000 is needed"));
    }
    return value->get<int64_t>();
  }

  double number(const std::string& key, double missing) const {
    const Json* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_number()) throw wrong(key, cat("is ", value->dump(), ", where a number is needed"));
    return value->get<double>();
  }

  double above(double least, const std::string& key, double missing) const {
    const double value = number(key, missing);
    if (value > least && std::isfinite(value)) return value;
    throw wrong(key, cat("is ", value, ", where a number above ", least, " is needed"));
  }

  double positive(const std::string& key, double missing) const { return above(0, key, missing); }

  bool flag(const std::string& key, bool missing) const {
    const Json* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_boolean()) throw wrong(key, cat("is ", value->dump(), ", where true or false is needed"));
    return value->get<bool>();
  }

  std::string word(const std::string& key, const std::string& missing) const {
    const Json* value = find(key);
    if (value == nullptr) return missing;
    if (!value->is_string()) throw wrong(key, cat("is ", value->dump(), ", where a word is needed"));
    return value->get<std::string>();
  }

  std::vector<double> numbers(const std::string& key, int64_t count) const {
    const Json* value = find(key);
    const bool fits = value != nullptr && value->is_array() && static_cast<int64_t>(value->size()) == count &&
                      std::all_of(value->begin(), value->end(),
                                  [](const Json& number) { return number.is_number() && number.get<double>() > 0; });
    if (!fits) throw wrong(key, cat("needs ", count, " positive numbers, one for each pair of a head"));
    return value->get<std::vector<double>>();
  }

  const std::string& where() const { return where_; }

 private:
  const Json& object_;
  std::string where_;
};

RopeKind rope_kind(const Keys& keys, const std::string& name) {
  constexpr std::pair<std::string_view, RopeKind> kKinds[] = {
      {"default", RopeKind::standard}, {"linear", RopeKind::linear}, {"dynamic", RopeKind::dynamic},
      {"yarn", RopeKind::yarn},        {"llama3", RopeKind::llama3}, {"longrope", RopeKind::longrope}};
  std::string known;
  for (const auto& [word, kind] : kKinds) {
    if (word == name) return kind;
    known += cat(known.empty() ? "" : ", ", word);
  }
  throw UnsupportedError(cat(keys.where(), ": rope type '", name, "' is not known; known are ", known));
}

Rope parse_rope(const Keys& config, int64_t head_dim, int64_t max_positions) {
  Rope rope{.theta = config.above(1, "rope_theta", 10000),
            .rotary_dim = head_dim,
            .original_positions = max_positions,
            .max_positions = max_positions};
  std::string key = "rope_scaling";  // before transformers 5; it wins where both are there
  if (config.find(key) == nullptr || config.find(key)->empty()) key = "rope_parameters";
  const Json* parameters = config.find(key);
  if (parameters == nullptr || parameters->empty()) return rope;

  const Keys keys(*parameters, cat(config.where(), ": ", key));
  rope.kind = rope_kind(keys, keys.word("rope_type", keys.word("type", "default")));
  rope.theta = keys.above(1, "rope_theta", rope.theta);
  // The default kind of this family ignores partial_rotary_factor.
  const double rotated = keys.number("partial_rotary_factor", config.number("partial_rotary_factor", 1));
  if (rope.kind != RopeKind::standard && rotated != 1) {
    throw UnsupportedError(cat(keys.where(), ": partial_rotary_factor is ", rotated,
                               "; only 1 is known together with a rope type other than default"));
  }
  rope.original_positions =
      config.size("original_max_position_embeddings", keys.size("original_max_position_embeddings", max_positions));
  const double stretch = static_cast<double>(max_positions) / static_cast<double>(rope.original_positions);
  const bool factor_needed =
      rope.kind == RopeKind::linear || rope.kind == RopeKind::dynamic || rope.kind == RopeKind::llama3;
  if (factor_needed && keys.find("factor") == nullptr) throw keys.wrong("factor", "is missing");
  rope.factor = keys.positive("factor", stretch);
  rope.attention_factor = keys.find("attention_factor") == nullptr ? 0 : keys.positive("attention_factor", 1);
  if (rope.kind == RopeKind::yarn) {
    rope.beta_fast = keys.positive("beta_fast", 32);
    rope.beta_slow = keys.positive("beta_slow", 1);
    rope.mscale = keys.number("mscale", 0);
    rope.mscale_all_dim = keys.number("mscale_all_dim", 0);
    rope.truncate = keys.flag("truncate", true);
  } else if (rope.kind == RopeKind::llama3) {
    rope.low_freq_factor = keys.positive("low_freq_factor", 1);
    rope.high_freq_factor = keys.positive("high_freq_factor", 4);
    if (rope.low_freq_factor == rope.high_freq_factor)
      throw keys.wrong("high_freq_factor", "must differ from low_freq_factor");
  } else if (rope.kind == RopeKind::longrope) {
    if (rope.original_positions == 1) {
      throw keys.wrong("original_max_position_embeddings", "is 1, whose logarithm cannot scale anything");
    }
    rope.short_factor = keys.numbers("short_factor", head_dim / 2);
    rope.long_factor = keys.numbers("long_factor", head_dim / 2);
  } else if (rope.kind == RopeKind::dynamic && head_dim <= 2) {
    throw config.wrong("head_dim", cat("is ", head_dim, ", but dynamic rope needs more than 2"));
  }
  return rope;
}

Activation parse_activation(const Keys& keys, const std::string& name) {
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  throw UnsupportedError(cat(keys.where(), ": hidden_act '", name,
                             "' is not known; known are silu, gelu, gelu_new, gelu_pytorch_tanh and relu"));
}

const Architecture* find_architecture(const Keys& keys, const std::string& model_type) {
  std::string known;
  for (const Architecture& architecture : architectures()) {
    for (const std::string_view name : architecture.model_types) {
      if (name == model_type) return &architecture;
      known += cat(known.empty() ? "" : ", ", name);
    }
  }
  throw UnsupportedError(cat(keys.where(), ": model_type '", model_type, "' is not known; known are: ", known));
}

}  // namespace

ModelConfig parse_model_config(const Json& json, const std::filesystem::path& folder) {
  const Keys keys(json, (folder / "config.json").string());
  ModelConfig config;
  if (keys.find("model_type") == nullptr) throw keys.wrong("model_type", "is missing");
  config.model_type = keys.word("model_type", "");
  config.architecture = find_architecture(keys, config.model_type);
  config.hidden = keys.size("hidden_size");
  config.intermediate = keys.size("intermediate_size");
  config.blocks = keys.size("num_hidden_layers");
  config.heads = keys.size("num_attention_heads");
  config.kv_heads = keys.size("num_key_value_heads", config.heads);
  config.vocabulary = keys.size("vocab_size");
  config.max_positions = keys.size("max_position_embeddings", 2048);
  if (config.blocks > 10'000)
    throw keys.wrong("num_hidden_layers", cat("is ", config.blocks, ", more than any model has"));
  if (config.heads % config.kv_heads != 0) {
    throw keys.wrong("num_attention_heads",
                     cat("is ", config.heads, ", which num_key_value_heads ", config.kv_heads, " does not divide"));
  }
  if (keys.find("head_dim") == nullptr && config.hidden % config.heads != 0) {
    throw keys.wrong("hidden_size", cat("is ", config.hidden, ", which ", config.heads,
                                        " heads do not divide, and there is no head_dim"));
  }
  config.head_dim = keys.size("head_dim", std::max<int64_t>(config.hidden / config.heads, 1));
  if (config.head_dim % 2 != 0)
    throw keys.wrong("head_dim", cat("is ", config.head_dim, ", but rotary embeddings need an even one"));
  config.norm_eps = static_cast<float>(keys.positive("rms_norm_eps", 1e-6));
  config.activation = parse_activation(keys, keys.word("hidden_act", "silu"));
  config.attention_bias = keys.flag("attention_bias", false);
  config.mlp_bias = keys.flag("mlp_bias", false);
  config.tied_embeddings = keys.flag("tie_word_embeddings", false);
  config.rope = parse_rope(keys, config.head_dim, config.max_positions);
  return config;
}

}  // namespace gptq
