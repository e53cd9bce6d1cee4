// config.json -> ModelConfig, in the spellings of all families.
#include "model/config_checks.h"
#include "model/config_keys.h"
#include "model/config_readers.h"

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
                                                                {"relu2", Activation::relu_squared}};
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
  known.resize(known.size() - 2);
  throw UnsupportedError(cat(keys.where(), ": model_type '", model_type, "' is not supported; supported are: ", known));
}

bool read(const Flag& flag, const Keys& keys) {
  return flag.key.empty() ? flag.missing
                          : keys.flag(std::string(flag.key), flag.missing != flag.inverted) != flag.inverted;
}

void read_sizes(const Keys& keys, const Architecture& row, ModelConfig& config) {
  const SizeKeys names(keys);
  config.hidden = keys.size(names.hidden);
  config.intermediate = keys.size(names.intermediate, row.gate.empty() && row.gate_up.empty() ? 4 * config.hidden : 0);
  config.blocks = keys.size(names.blocks, 0, kMostBlocks);
  config.heads = keys.size(names.heads, row.missing.heads, kMostHeads);
  config.kv_heads =
      read(row.multi_query, keys) ? 1
      : row.has_key_heads
          ? keys.size(names.kv_heads, row.missing.key_heads > 0 ? row.missing.key_heads : config.heads, kMostHeads)
          : config.heads;
  config.vocabulary = keys.size("vocab_size", row.missing.vocabulary, kMostTokens);
  config.max_positions = keys.size(names.positions, row.missing.positions, kMostTokens);
  if (config.heads % config.kv_heads != 0) {
    throw keys.wrong(names.heads,
                     cat("is ", config.heads, ", which ", names.kv_heads, " ", config.kv_heads, " does not divide"));
  }
  if (keys.find(names.head_dim) == nullptr && row.missing.head_dim == 0 && config.hidden % config.heads != 0) {
    throw keys.wrong(names.hidden, cat("is ", config.hidden, ", which ", config.heads,
                                       " heads do not divide, and there is no head_dim"));
  }
  const int64_t share = std::max<int64_t>(config.hidden / config.heads, 1);
  config.head_dim = keys.size(names.head_dim, row.missing.head_dim > 0 ? row.missing.head_dim : share);
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
  if (row.window.empty() || !read(row.windowed, keys) || keys.find(std::string(row.window)) == nullptr) return;
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

// A multimodal model has the language model's keys in text_config.
bool is_nested(const Keys& whole) { return whole.find("text_config") != nullptr; }
Keys text_keys(const Keys& whole) { return is_nested(whole) ? whole.object("text_config") : whole; }

}  // namespace

ModelConfig parse_model_config(const Json& json, const std::filesystem::path& folder) {
  const Keys whole(json, (folder / "config.json").string());
  const bool nested = is_nested(whole);
  const Keys keys = text_keys(whole);
  ModelConfig config;
  config.model_type = keys.word("model_type", nested ? whole.word("model_type", "") : "");
  if (config.model_type.empty()) throw keys.wrong("model_type", "is missing");
  const Architecture& row = find_architecture(keys, config.model_type);
  config.architecture = &row;
  config.root = row.root;
  config.head = row.head;
  read_sizes(keys, row, config);
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
  config.qk_norm = (!row.q_norm.empty() || row.qk_norm == QkNorm::unweighted) && read(row.qk_normed, keys);
  config.tied_embeddings = read(row.tied, nested && whole.find("tie_word_embeddings") != nullptr ? whole : keys);
  const auto head_dim = static_cast<double>(config.head_dim);
  config.kinds.assign(static_cast<size_t>(config.blocks),
                      {.score_scale = row.scaled_scores ? static_cast<float>(1 / std::sqrt(head_dim)) : 1.0F});
  if (row.positions == Positions::rope) {
    config.ropes.push_back(parse_rope(keys, row, config.head_dim, config.max_positions));
  } else {
    for (BlockKind& kind : config.kinds) kind.rope = -1;
  }
  if (row.positions == Positions::alibi) config.slopes = alibi_slopes(config.heads);
  read_windows(keys, row, config);
  for (const ReadConfig also : row.also) also(keys, config);
  check_numbers(keys, config);
  return config;
}

ModelConfig parse_model_config(const Checkpoint& checkpoint) {
  ModelConfig config = parse_model_config(checkpoint.config(), checkpoint.folder());
  const Architecture& row = *config.architecture;
  const auto has = [&](const std::string& root, std::string_view module) {
    return checkpoint.has(cat(root, root.empty() ? "" : ".", module, ".weight"));
  };
  const std::string root(row.root);
  const size_t dot = root.find('.');
  const std::string below = dot == std::string::npos ? "" : root.substr(dot + 1);
  for (const std::string& found : {root, below, cat("model.", root), cat("language_model.", root),
                                   std::string("model.language_model"), cat("language_model.", root, ".", root)}) {
    if (!has(found, row.embedding)) continue;
    config.root = found;
    break;
  }
  for (const char* above : {"", "model.", "language_model.", "model.language_model."}) {
    if (!checkpoint.has(cat(above, row.head, ".weight"))) continue;
    config.head = cat(above, row.head);
    break;
  }
  const Keys whole(checkpoint.config(), (checkpoint.folder() / "config.json").string());
  check_counts(text_keys(whole), config, checkpoint);
  return config;
}

}  // namespace gptq
