// config.json -> ModelConfig, in the spellings of all families.
#include <set>
#include <utility>

#include "base/edit_distance.h"
#include "model/class_defaults.h"
#include "model/config_accounting.h"
#include "model/config_checks.h"
#include "model/config_keys.h"
#include "model/config_readers.h"
#include "model/refused_families.h"

namespace gptq {
namespace {

Activation parse_activation(const Keys& keys, const std::string& key, const std::string& name) {
  constexpr std::pair<std::string_view, Activation> kKnown[] = {{"silu", Activation::silu},
                                                                {"swish", Activation::silu},
                                                                {"gelu", Activation::gelu},
                                                                {"gelu_python", Activation::gelu},
                                                                {"gelu_new", Activation::gelu_tanh},
                                                                {"gelu_fast", Activation::gelu_tanh},
                                                                {"gelu_pytorch_tanh", Activation::gelu_tanh},
                                                                {"relu", Activation::relu},
                                                                {"relu2", Activation::relu_squared},
                                                                {"quick_gelu", Activation::quick_gelu}};
  std::string known;
  for (const auto& [word, activation] : kKnown) {
    if (word == name) return activation;
    known += cat(known.empty() ? "" : ", ", word);
  }
  throw UnsupportedError(cat(keys.where(), ": ", key, " '", name, "' is not supported; supported are ", known));
}

bool holds(const Condition& condition, const Keys& keys) {
  const Json* value = keys.find(std::string(condition.key));
  return condition.value == (value == nullptr ? std::string(condition.missing) : value->dump());
}

// "nearest are a, b; " for a name that resembles some.
std::string nearest_types(const std::string& model_type) {
  std::set<std::pair<int64_t, std::string_view>> near;
  for (const Architecture& row : architectures()) {
    for (const std::string_view name : row.model_types) {
      const bool begins = model_type.starts_with(name) || name.starts_with(model_type);
      const int64_t distance = edit_distance(model_type.substr(0, 64), name);
      if (begins || distance <= static_cast<int64_t>(name.size()) / 3) near.emplace(distance, name);
    }
  }
  std::string names;
  size_t count = 0;
  for (const auto& [distance, name] : near) {
    if (count++ < 3) names += cat(names.empty() ? "" : ", ", name);
  }
  return names.empty() ? "" : cat("nearest ", count == 1 ? "is " : "are ", names, "; ");
}

const Architecture& find_architecture(const Keys& keys, const std::string& model_type) {
  std::string known;
  bool is_known = false;
  for (const Architecture& row : architectures()) {
    for (const std::string_view name : row.model_types) {
      if (name == model_type) {
        is_known = true;
        if (std::all_of(row.when.begin(), row.when.end(), [&](const Condition& c) { return holds(c, keys); }))
          return row;
      } else if (known.find(cat(name, ",")) == std::string::npos) {
        known += cat(name, ", ");
      }
    }
  }
  if (is_known)
    throw UnsupportedError(
        cat(keys.where(), ": this kind of ", model_type, " is not supported; docs/families.md lists those that are"));
  if (const std::string_view reason = refusal_of(model_type); !reason.empty()) {
    throw UnsupportedError(
        cat(keys.where(), ": model_type '", model_type, "' is not supported: ", reason, " (docs/families.md)"));
  }
  known.resize(known.size() - 2);
  throw UnsupportedError(cat(keys.where(), ": model_type '", model_type, "' is not supported; ",
                             nearest_types(model_type), "supported are: ", known));
}

bool read(const Flag& flag, const Keys& keys) {
  return flag.key.empty() ? flag.missing
                          : keys.flag(std::string(flag.key), flag.missing != flag.inverted) != flag.inverted;
}

// Of their MLPs, where config.json has a list of them.
std::vector<int64_t> widths_of_blocks(const Keys& keys, int64_t blocks) {
  const Json* widths = keys.find("intermediate_size");
  return widths != nullptr && widths->is_array() ? keys.sizes("intermediate_size", blocks) : std::vector<int64_t>();
}

// `defaults`: for keys that are absent, after those of the row.
void read_sizes(const Keys& keys, const Architecture& row, const ClassDefaults& defaults, ModelConfig& config) {
  const SizeKeys names(keys);
  const auto either = [](int64_t of_row, int64_t of_class) { return of_row > 0 ? of_row : of_class; };
  config.hidden = keys.size(names.hidden, defaults.hidden);
  config.blocks = keys.size(names.blocks, either(row.missing.blocks, defaults.blocks), kMostBlocks);
  const std::vector<int64_t> widths = widths_of_blocks(keys, config.blocks);
  config.intermediate =
      widths.empty()
          ? keys.size(names.intermediate, either(either(row.missing.intermediate, defaults.intermediate),
                                                 row.gate.empty() && row.gate_up.empty() ? 4 * config.hidden : 0))
          : *std::max_element(widths.begin(), widths.end());
  config.heads = keys.size(names.heads, either(row.missing.heads, defaults.heads), kMostHeads);
  const int64_t key_heads = either(either(row.missing.key_heads, defaults.key_heads), config.heads);
  config.kv_heads = read(row.multi_query, keys) ? 1
                    : row.has_key_heads         ? keys.size(names.kv_heads, key_heads, kMostHeads)
                                                : config.heads;
  config.vocabulary = keys.size("vocab_size", either(row.missing.vocabulary, defaults.vocabulary), kMostTokens);
  config.max_positions = keys.size(names.positions, either(defaults.positions, row.missing.positions), kMostTokens);
  if (config.heads % config.kv_heads != 0) {
    throw keys.wrong(names.heads,
                     cat("is ", config.heads, ", which ", names.kv_heads, " ", config.kv_heads, " does not divide"));
  }
  const int64_t head_dim = either(row.missing.head_dim, defaults.head_dim);
  if (keys.find(names.head_dim) == nullptr && head_dim == 0 && config.hidden % config.heads != 0) {
    throw keys.wrong(names.hidden, cat("is ", config.hidden, ", which ", config.heads,
                                       " heads do not divide, and there is no head_dim"));
  }
  config.head_dim = keys.size(names.head_dim, either(head_dim, std::max<int64_t>(config.hidden / config.heads, 1)));
  if (row.positions == Positions::rope && config.head_dim % 2 != 0)
    throw keys.wrong(names.head_dim, cat("is ", config.head_dim, ", but rotary embeddings need an even one"));
}

// ALiBi (arXiv 2108.12409): for n heads, a power of two, the slopes are 2^(-8 i / n); otherwise those of the next lower
// power, then every other slope of the next higher power.
std::vector<float> alibi_slopes(int64_t heads) {
  int64_t power = 1;
  while (power * 2 <= heads) power *= 2;
  std::vector<float> slopes;
  for (int64_t i = 1; i <= power; ++i)
    slopes.push_back(static_cast<float>(std::pow(2.0, -8.0 * static_cast<double>(i) / static_cast<double>(power))));
  for (int64_t i = 1; static_cast<int64_t>(slopes.size()) < heads; i += 2)
    slopes.push_back(static_cast<float>(std::pow(2.0, -4.0 * static_cast<double>(i) / static_cast<double>(power))));
  return slopes;
}

// The blocks with a window: from layer_types, or by the row's pattern.
void read_windows(const Keys& keys, const Architecture& row, ModelConfig& config) {
  if (row.window.empty()) return;
  keys.find(std::string(row.full_every_key));
  if (!read(row.windowed, keys) || keys.find(std::string(row.window)) == nullptr) return;
  const int64_t window = keys.size(std::string(row.window), 0, kMostTokens);
  const std::string every_key(row.full_every_key);
  const Json* pattern = keys.find(every_key);
  const int64_t every = pattern != nullptr && pattern->is_string()
                            ? static_cast<int64_t>(pattern->get<std::string>().size())  // "LLLG"
                            : keys.whole(every_key, row.full_every);
  const Json* types = keys.list("layer_types", config.blocks);
  for (int64_t block = 0; block < config.blocks; ++block) {
    BlockKind& kind = config.kinds[block];
    bool sees_all = every > 0 && (block + 1) % every == 0;
    if (types != nullptr) {
      const Json& type = (*types)[block];
      if (type != "full_attention" && type != "sliding_attention")
        throw UnsupportedError(cat(keys.where(), ": layer_types has ", type.dump(),
                                   "; supported are full_attention and sliding_attention"));
      sees_all = type == "full_attention";
    }
    if (!sees_all) kind.window = window;
    if (sees_all && row.full_is_unrotated) kind.rope = -1;
  }
}

// Attention to later tokens, which no backend computes.
void refuse_two_ways(const Keys& keys) {
  const auto refuse = [&](const char* key, const Json& value) {
    throw UnsupportedError(cat(keys.where(), ": '", key, "' is ", shown(value),
                               ": tokens see later ones in this model, and only causal attention is computed"));
  };
  const Json* causal = keys.find("is_causal");
  if (causal != nullptr && *causal != true) refuse("is_causal", *causal);
  for (const char* key : {"use_bidirectional_attention", "bidirectional", "prefix_lm", "use_prefix_lm"}) {
    const Json* value = keys.find(key);
    if (value != nullptr && *value != false && *value != "vision") refuse(key, *value);  // images alone, both ways
  }
}

// Wrappers whose attention is not causal for text either: PaliGemma reads a prompt both ways.
void refuse_wrapper(const Keys& whole) {
  const std::string type = whole.word("model_type", "");
  for (const std::string_view name : {"paligemma", "colpali", "pi0"}) {
    if (type == name)
      throw UnsupportedError(cat(whole.where(), ": model_type '", type,
                                 "': the tokens of its prompt see later ones, and only causal attention is computed"));
  }
}

}  // namespace

ModelConfig parse_model_config(const Json& json, const std::filesystem::path& folder) {
  KeyLog log;
  const Levels levels(json, (folder / "config.json").string(), &log);
  const Keys& whole = levels.whole;
  const Keys keys = levels.text();
  ModelConfig config;
  config.model_type = keys.word("model_type", levels.nested() ? whole.word("model_type", "") : "");
  if (config.model_type.empty()) throw keys.wrong("model_type", "is missing");
  const Architecture& row = find_architecture(keys, config.model_type);
  refuse_wrapper(whole);
  refuse_two_ways(whole);
  if (levels.nested()) refuse_two_ways(keys);
  config.architecture = &row;
  config.norm_weight = row.norm_weight;
  config.expert_row = row.experts;
  config.root = row.root;
  config.head = row.head;
  read_sizes(keys, row, levels.nested() ? class_defaults(config.model_type) : ClassDefaults(), config);
  config.norm_eps =
      static_cast<float>(keys.positive(keys.spelled({"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon",
                                                     "layernorm_epsilon", "norm_epsilon", "norm_eps"}),
                                       row.norm_eps, 1));
  const std::string activation(row.activation_key);
  config.activation = parse_activation(
      keys, activation,
      activation.empty() ? std::string(row.activation) : keys.word(activation, std::string(row.activation)));
  config.q_bias = read(row.q_bias, keys);
  config.kv_bias = read(row.kv_bias, keys);
  config.o_bias = read(row.o_bias, keys);
  config.mlp_bias = read(row.mlp_bias, keys);
  config.head_bias = read(row.head_bias, keys);
  config.norm_bias = read(row.norm_bias, keys);
  config.parallel = read(row.parallel, keys);
  config.post_norm = read(row.post_normed, keys);
  config.norm = row.norm;
  config.rotary_order = row.rotary_order;
  config.qk_norm = (!row.q_norm.empty() || row.qk_norm == QkNorm::unweighted) && read(row.qk_normed, keys);
  keys.find("tie_word_embeddings");  // read below where the whole has none
  config.tied_embeddings =
      read(row.tied, levels.nested() && whole.find("tie_word_embeddings") != nullptr ? whole : keys);
  const auto head_dim = static_cast<double>(config.head_dim);
  config.kinds.assign(static_cast<size_t>(config.blocks),
                      {.score_scale = row.scaled_scores ? static_cast<float>(1 / std::sqrt(head_dim)) : 1.0F});
  const std::vector<int64_t> widths = widths_of_blocks(keys, config.blocks);
  for (size_t block = 0; block < widths.size(); ++block) config.kinds[block].intermediate = widths[block];
  if (row.positions == Positions::rope) {
    config.ropes.push_back(parse_rope(keys, row, config.head_dim, config.max_positions));
  } else {
    for (BlockKind& kind : config.kinds) kind.rope = -1;
  }
  if (row.positions == Positions::alibi) config.slopes = alibi_slopes(config.heads);
  read_windows(keys, row, config);
  for (const ReadConfig also : row.also) also(keys, config);
  for (BlockKind& kind : config.kinds) {
    for (const auto& [size, of_model] :
         {std::pair(&kind.heads, config.heads), std::pair(&kind.kv_heads, config.kv_heads),
          std::pair(&kind.head_dim, config.head_dim), std::pair(&kind.intermediate, config.intermediate)})
      if (*size == 0) *size = of_model;
    if (kind.value_dim == 0) kind.value_dim = kind.head_dim;
  }
  if (config.state_width == 0) config.state_width = config.hidden;
  check_numbers(keys, config);
  config.unread = unread_keys(keys, config, log);
  return config;
}

}  // namespace gptq
