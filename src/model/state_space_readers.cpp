#include "model/state_space_readers.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "model/config_keys.h"
#include "model/config_readers.h"

namespace gptq {
namespace {

constexpr int64_t kMostState = 4096;

// A number, or infinity as Python and transformers spell it in JSON.
double bound_of(const Keys& keys, const Json& value) {
  const auto is_infinite = [](const Json& text) { return text == "Infinity" || text == "inf" || text == "Inf"; };
  const bool is_wrapped = value.is_object() && value.contains("__float__") && is_infinite(value["__float__"]);
  if (value.is_null() || is_wrapped || is_infinite(value)) return std::numeric_limits<double>::infinity();
  if (!value.is_number() || !(value.get<double>() >= 0))
    throw keys.wrong("time_step_limit", cat("has ", shown(value), ", where a number from 0 is needed"));
  return value.get<double>();
}

void read_step_limit(const Keys& keys, StateSpace& space) {
  const Json* limit = keys.find("time_step_limit");
  if (limit == nullptr) return;
  if (!limit->is_array() || limit->size() != 2) throw keys.wrong("time_step_limit", "is no list of two numbers");
  const double least = bound_of(keys, (*limit)[0]), most = bound_of(keys, (*limit)[1]);
  if (!(least <= kLargestNumber) || most < least) throw keys.wrong("time_step_limit", "is no range of step sizes");
  space.min_step = static_cast<float>(least);
  space.max_step = static_cast<float>(most);
}

// hidden_size times `key`.
int64_t expanded_width(const Keys& keys, const std::string& key, const ModelConfig& config) {
  const double width = keys.positive(key, 2) * static_cast<double>(config.hidden);
  if (width >= 1 && width <= static_cast<double>(kMostWidth)) return static_cast<int64_t>(width);
  throw keys.wrong(key, cat("makes mixers of ", width, " features, where 1 to ", kMostWidth, " are possible"));
}

// Throws unless heads make up `width`, and groups are of equal size.
void check_dual(const Keys& keys, const std::string& heads_key, int64_t width, const StateSpace& space) {
  if (space.head_dim > kMostWidth / space.heads || space.groups * space.state > kMostWidth)
    throw keys.wrong(heads_key, cat("makes states of more than the ", kMostWidth, " features that are possible"));
  if (width > 0 && space.width() != width) {
    throw keys.wrong(heads_key, cat("is ", space.heads, ", of heads with ", space.head_dim,
                                    " features, where the mixer has ", width, " features"));
  }
  if (space.heads % space.groups != 0)
    throw keys.wrong(heads_key, cat("is ", space.heads, ", which ", space.groups, " groups do not divide"));
}

void refuse_other_activations(const Keys& keys, const std::string& key) {
  const std::string name = keys.word(key, "silu");
  if (name != "silu" && name != "swish")
    throw UnsupportedError(
        cat(keys.where(), ": ", key, " '", name, "' is not supported for mixers; supported is silu"));
}

// What mixes the tokens of a block of a hybrid, in old and new words.
Mixer mixer_of(const Keys& keys, const std::string& key, const Json& type) {
  if (type == "mamba" || type == "linear_attention") return Mixer::state_space;
  if (type == "attention" || type == "full_attention") return Mixer::attention;
  throw UnsupportedError(
      cat(keys.where(), ": ", key, " has ", shown(type), "; supported are linear_attention and full_attention"));
}

void set_mixers(ModelConfig& config, Mixer mixer) {
  for (BlockKind& kind : config.kinds) kind.mixer = mixer;
}

void forget_rope(ModelConfig& config) {
  for (BlockKind& kind : config.kinds) kind.rope = -1;
}

float multiplier(const Keys& keys, const std::string& key) { return static_cast<float>(keys.number(key, 1)); }

// `count` multipliers, all 1 if there is no list.
std::vector<float> multipliers(const Keys& keys, const std::string& key, size_t count) {
  const Json* list = keys.find(key);
  if (list == nullptr) return std::vector<float>(count, 1.0F);
  const auto is_factor = [](const Json& value) {
    if (!value.is_number()) return false;
    const double magnitude = std::abs(value.get<double>());
    return magnitude >= kSmallestNumber && magnitude <= kLargestNumber;
  };
  if (!list->is_array() || list->size() != count || !std::all_of(list->begin(), list->end(), is_factor))
    throw keys.wrong(key, cat("needs ", count, " numbers other than 0"));
  return list->get<std::vector<float>>();
}

// Sizes of a Mamba-2 mixer of `width` features, as hybrids spell them.
void read_hybrid_space(const Keys& keys, int64_t width, ModelConfig& config) {
  StateSpace& space = config.state_space;
  space.heads = keys.size("mamba_n_heads", 128, kMostHeads);
  space.groups = keys.size("mamba_n_groups", 1, kMostHeads);
  space.state = keys.size("mamba_d_state", 256, kMostState);
  space.taps = keys.size("mamba_d_conv", 4, kMostTaps);
  space.convolution_bias = keys.flag("mamba_conv_bias", true);
  space.in_bias = space.out_bias = keys.flag("mamba_proj_bias", false);
  const Json* head_dim = keys.find("mamba_d_head");
  const bool is_derived = head_dim == nullptr || *head_dim == "auto";
  space.head_dim = is_derived ? std::max<int64_t>(width / space.heads, 1) : keys.size("mamba_d_head");
  check_dual(keys, "mamba_n_heads", width, space);
  read_step_limit(keys, space);
}

// The blocks of a Nemotron-H in words or letters.
std::vector<std::string> block_words(const Keys& keys) {
  const std::string key = keys.spelled({"layers_block_type", "layer_types", "hybrid_override_pattern"});
  const Json* types = keys.find(key);
  if (types == nullptr) throw keys.wrong("hybrid_override_pattern", "is missing");
  std::vector<std::string> words;
  if (types->is_array()) {
    for (const Json& type : *types) words.push_back(type.is_string() ? type.get<std::string>() : shown(type));
  } else {
    for (const char letter : keys.word(key, "")) words.emplace_back(1, letter);
  }
  if (words.empty() || words.size() > static_cast<size_t>(kMostBlocks)) {
    throw keys.wrong(key, cat("names ", words.size(), " blocks, where 1 to ", kMostBlocks, " are possible"));
  }
  return words;
}

// Sets what a block of a Nemotron-H is: a mixer, an MLP, or experts.
void set_block(const Keys& keys, const std::string& word, BlockKind& kind) {
  kind.has_experts = word == "E" || word == "moe";
  kind.has_mlp = kind.has_experts || word == "-" || word == "mlp";
  if (kind.has_mlp) {
    kind.mixer = Mixer::none;
  } else if (word == "M" || word == "mamba" || word == "linear_attention") {
    kind.mixer = Mixer::state_space;
  } else if (word == "*" || word == "attention" || word == "full_attention") {
    kind.mixer = Mixer::attention;
  } else {
    throw UnsupportedError(cat(keys.where(), ": a block is '", word.substr(0, 64),
                               "'; supported are linear_attention (M), full_attention (*), mlp (-) and moe (E)"));
  }
}

// Mamba's own sizes; its channels are heads of one element.
void read_scan_sizes(const Keys& keys, const std::string& expand, const std::string& rank, ModelConfig& config) {
  StateSpace& space = config.state_space;
  space.heads = expanded_width(keys, expand, config);
  space.head_dim = space.groups = 1;
  const Json* value = keys.find(rank);
  space.rank = value == nullptr || *value == "auto" ? (config.hidden + 15) / 16 : keys.size(rank);
  space.has_norm = false;
}

// What Mamba and Mamba-2 spell alike; every block is a mixer.
void read_plain_space(const Keys& keys, int64_t state, ModelConfig& config) {
  StateSpace& space = config.state_space;
  space.state = keys.size("state_size", state, kMostState);
  space.taps = keys.size("conv_kernel", 4, kMostTaps);
  space.convolution_bias = keys.flag("use_conv_bias", true);
  space.in_bias = space.out_bias = keys.flag("use_bias", false);
  keys.find("chunk_size");
  forget_rope(config);
  for (BlockKind& kind : config.kinds) {
    kind.mixer = Mixer::state_space;
    kind.has_mlp = false;
  }
}

}  // namespace

void read_hybrid_state_space(const Keys& keys, ModelConfig& config) {
  read_hybrid_space(keys, expanded_width(keys, "mamba_expand", config), config);
}

void read_attending_blocks(const Keys& keys, ModelConfig& config) {
  set_mixers(config, Mixer::state_space);
  const Json* attending = keys.find("attn_layer_indices");
  if (attending == nullptr) return;
  if (!attending->is_array()) throw keys.wrong("attn_layer_indices", "is no list");
  for (const Json& block : *attending) {
    if (!is_whole(block, 0, config.blocks - 1))
      throw keys.wrong("attn_layer_indices", "names blocks that the model does not have");
    config.kinds[block.get<size_t>()].mixer = Mixer::attention;
  }
}

void read_granite_hybrid(const Keys& keys, ModelConfig& config) {
  set_mixers(config, Mixer::state_space);
  const std::string key = keys.spelled({"layer_types", "layers_block_type"});
  if (const Json* types = keys.list(key, config.blocks)) {
    for (size_t block = 0; block < types->size(); ++block)
      config.kinds[block].mixer = mixer_of(keys, key, (*types)[block]);
  }
  if (keys.word("position_embedding_type", "") != "rope") forget_rope(config);
  if (!config.architecture->experts.down.empty()) return;
  keys.find("num_experts_per_tok");
  config.intermediate = keys.size("shared_intermediate_size", 1024);
}

// Factors of what reads the normalized states, and of what is added to them, are moved to where they cost nothing.
void read_falcon_h1(const Keys& keys, ModelConfig& config) {
  const int64_t expanded = expanded_width(keys, "mamba_expand", config);
  const bool is_expanded = keys.find("mamba_d_ssm") == nullptr && keys.all().contains("mamba_d_ssm");  // null
  read_hybrid_space(keys, is_expanded ? expanded : keys.size("mamba_d_ssm", 1024), config);
  StateSpace& space = config.state_space;
  space.out_bias = keys.flag("projectors_bias", false);
  space.has_norm = keys.flag("mamba_rms_norm", false);
  space.norm_before_gate = keys.flag("mamba_norm_before_gate", true);
  set_mixers(config, Mixer::attention_and_state_space);
  const float attention_in = multiplier(keys, "attention_in_multiplier"),
              space_in = multiplier(keys, "ssm_in_multiplier"), of_keys = multiplier(keys, "key_multiplier");
  const std::vector<float> of_parts = multipliers(keys, "ssm_multipliers", space.multipliers.size()),
                           of_mlp = multipliers(keys, "mlp_multipliers", 2);
  const bool has_bias = config.q_bias || config.kv_bias || config.o_bias;
  if ((has_bias && attention_in != 1) || (space.in_bias && space_in != 1) || (config.mlp_bias && of_mlp[0] != 1)) {
    throw UnsupportedError(
        cat(keys.where(), ": projections have biases and multipliers other than 1; supported is one or the other"));
  }
  for (size_t i = 0; i < of_parts.size(); ++i) space.multipliers[i] = of_parts[i] * space_in;
  for (BlockKind& kind : config.kinds) kind.score_scale *= attention_in * attention_in * of_keys;
  config.attention_scale = attention_in * multiplier(keys, "attention_out_multiplier");
  config.state_space_scale = multiplier(keys, "ssm_out_multiplier");
  config.mlp_input_scale = of_mlp[0];
  config.mlp_scale = of_mlp[1] / of_mlp[0];
  config.embedding_scale = multiplier(keys, "embedding_multiplier");
  config.logit_scale = multiplier(keys, "lm_head_multiplier");
}

void read_nemotron_h(const Keys& keys, ModelConfig& config) {
  StateSpace& space = config.state_space;
  space.heads = keys.size("mamba_num_heads", 128, kMostHeads);
  space.head_dim = keys.size("mamba_head_dim", 64);
  space.groups = keys.size(keys.spelled({"n_groups", "mamba_n_groups"}), 8, kMostHeads);
  space.state = keys.size("ssm_state_size", 128, kMostState);
  space.taps = keys.size(keys.spelled({"conv_kernel", "mamba_d_conv"}), 4, kMostTaps);
  space.convolution_bias = keys.flag(keys.spelled({"use_conv_bias", "mamba_conv_bias"}), true);
  space.in_bias = space.out_bias = keys.flag("use_bias", false);
  space.min_step = static_cast<float>(keys.positive(keys.spelled({"time_step_min", "mamba_dt_min"}), 0.001));
  check_dual(keys, "mamba_num_heads", 0, space);
  refuse_other_activations(keys, "mamba_hidden_act");
  for (const char* key : {"chunk_size", "expand"}) keys.find(key);  // heads say how wide it is
  if (const int64_t size = keys.size("attention_head_dim", config.head_dim); size != config.head_dim) {
    throw keys.wrong("attention_head_dim", cat("is ", size, ", but heads have ", config.head_dim,
                                               " features without a head_dim that says so"));
  }
  const std::vector<std::string> words = block_words(keys);
  config.blocks = static_cast<int64_t>(words.size());
  BlockKind plain = config.kinds.front();
  plain.rope = -1;
  config.kinds.assign(words.size(), plain);
  for (size_t block = 0; block < words.size(); ++block) set_block(keys, words[block], config.kinds[block]);
  const std::vector<BlockKind> kinds = config.kinds;
  if (std::none_of(kinds.begin(), kinds.end(), [](const BlockKind& kind) { return kind.has_experts; })) {
    // transformers writes them without experts too.
    for (const char* key : {"n_routed_experts", "n_shared_experts", "moe_intermediate_size", "moe_latent_size",
                            "moe_shared_expert_intermediate_size", "num_experts_per_tok", "n_group", "topk_group",
                            "norm_topk_prob", "routed_scaling_factor"})
      keys.find(key);
    return;
  }
  if (keys.find("moe_latent_size") != nullptr)
    throw UnsupportedError(cat(keys.where(), ": moe_latent_size: experts in a latent space are not supported"));
  read_experts(keys, config);
  config.experts.shared_intermediate = keys.size("moe_shared_expert_intermediate_size", 7688);
  config.kinds = kinds;
}

void read_jamba(const Keys& keys, ModelConfig& config) {
  StateSpace& space = config.state_space;
  read_scan_sizes(keys, "mamba_expand", "mamba_dt_rank", config);
  space.state = keys.size("mamba_d_state", 16, kMostState);
  space.taps = keys.size("mamba_d_conv", 4, kMostTaps);
  space.convolution_bias = keys.flag("mamba_conv_bias", true);
  space.in_bias = space.out_bias = keys.flag("mamba_proj_bias", false);
  space.selection_eps = config.norm_eps;
  forget_rope(config);
  const int64_t attends_every = keys.size("attn_layer_period", 8, kMostBlocks),
                first_attending = keys.whole("attn_layer_offset", 4),
                experts_every = keys.size("expert_layer_period", 2, kMostBlocks),
                first_experts = keys.whole("expert_layer_offset", 1);
  read_experts(keys, config);
  for (int64_t block = 0; block < config.blocks; ++block) {
    BlockKind& kind = config.kinds[static_cast<size_t>(block)];
    kind.mixer = block % attends_every == first_attending ? Mixer::attention : Mixer::state_space;
    kind.has_experts = config.experts.count > 1 && block % experts_every == first_experts;
  }
}

void read_mamba2(const Keys& keys, ModelConfig& config) {
  StateSpace& space = config.state_space;
  space.heads = keys.size("num_heads", 128, kMostHeads);
  space.head_dim = keys.size("head_dim", 64);
  space.groups = keys.size("n_groups", 8, kMostHeads);
  read_plain_space(keys, 128, config);
  check_dual(keys, "num_heads", expanded_width(keys, "expand", config), space);
  read_step_limit(keys, space);
}

void read_mamba(const Keys& keys, ModelConfig& config) {
  read_scan_sizes(keys, "expand", "time_step_rank", config);
  read_plain_space(keys, 16, config);
  config.state_space.selection_eps = static_cast<float>(keys.positive("mixer_rms_eps", 1e-6, 1));
}

}  // namespace gptq
