#include "model/mixer_readers.h"

#include "base/rounding.h"
#include "model/config_keys.h"
#include "model/config_readers.h"

namespace gptq {
namespace {

// Gives the mixer to each block whose layer_types is `name`, and the window, if there is one, to each that is
// sliding_attention; the others are full_attention.
void read_layer_types(const Keys& keys, const Json& types, const char* name, Mixer mixer, ModelConfig& config,
                      int64_t window = 0) {
  for (int64_t block = 0; block < config.blocks; ++block) {
    const Json& type = types[static_cast<size_t>(block)];
    BlockKind& kind = config.kinds[static_cast<size_t>(block)];
    if (type == name) {
      kind.mixer = mixer;
    } else if (type == "sliding_attention" && window > 0) {
      kind.window = window;
    } else if (type != "full_attention") {
      throw UnsupportedError(cat(keys.where(), ": layer_types has ", shown(type), "; supported are full_attention",
                                 window > 0 ? ", sliding_attention" : "", " and ", name));
    }
  }
}

}  // namespace

void read_short_convolutions(const Keys& keys, ModelConfig& config) {
  config.convolution.taps = keys.size("conv_L_cache", 3, kMostTaps);
  config.convolution.bias = keys.flag("conv_bias", false);
  if (keys.find("tie_embedding") != nullptr) config.tied_embeddings = keys.flag("tie_embedding", true);
  const Json* types = keys.list("layer_types", config.blocks);
  const Json* attending = keys.find("full_attn_idxs");
  if (types != nullptr) return read_layer_types(keys, *types, "conv", Mixer::convolution, config);
  if (attending == nullptr) return;
  if (!attending->is_array()) throw keys.wrong("full_attn_idxs", "is no list");
  for (BlockKind& kind : config.kinds) kind.mixer = Mixer::convolution;
  for (const Json& block : *attending) {
    if (!is_whole(block, 0, config.blocks - 1))
      throw keys.wrong("full_attn_idxs", "names blocks that the model does not have");
    config.kinds[block.get<size_t>()].mixer = Mixer::attention;
  }
}

void read_lfm3(const Keys& keys, ModelConfig& config) {
  config.convolution.taps = keys.size("conv_L_cache", 7, kMostTaps);
  config.convolution.bias = keys.flag("conv_bias", false);
  config.gate_per_head = true;
  if (!keys.flag("use_attention_gate", true))
    throw UnsupportedError(cat(keys.where(), ": use_attention_gate is false; only true is supported"));
  const int64_t window = keys.size("sliding_window", 256, kMostTokens);
  Json usual = Json::array();
  for (int64_t block = 0; block < config.blocks; ++block)
    usual.push_back(block % 4 == 2 ? "full_attention" : block % 4 == 0 && block > 0 ? "sliding_attention" : "conv");
  const Json* types = keys.list("layer_types", config.blocks);
  read_layer_types(keys, types == nullptr ? usual : *types, "conv", Mixer::convolution, config, window);
  Rope local{.theta = 10000, .rotary_dim = config.head_dim};
  if (keys.find("rope_parameters") == nullptr) {
    config.ropes = {{.kind = RopeKind::proportional, .theta = 1e6, .rotary_dim = config.head_dim, .rotated = 0.5}};
  } else {
    local = parse_rope(keys, *config.architecture, config.head_dim, config.max_positions, "sliding_attention");
  }
  give_windowed_blocks(local, config);
}

void read_adjusted_width(const Keys& keys, ModelConfig& config) {
  const double multiplier = keys.positive("block_ffn_dim_multiplier", 1);
  const int64_t unit = keys.size("block_multiple_of", 256);
  if (!keys.flag("block_auto_adjust_ff_dim", true)) return;
  const int64_t two_thirds = 2 * config.intermediate / 3;
  const double width = multiplier * static_cast<double>(two_thirds);
  if (width > static_cast<double>(kMostWidth))
    throw keys.wrong("block_ffn_dim_multiplier", cat("makes MLPs of more than ", kMostWidth, " features"));
  config.intermediate = std::max<int64_t>(rounded_up(static_cast<int64_t>(width), unit), unit);
}

namespace {

// `missing` are sizes that config.json may omit; 0: they follow from the others.
void read_delta_sizes(const Keys& keys, const DeltaShape& missing, ModelConfig& config) {
  DeltaShape& shape = config.delta.shape;
  shape.key_heads = keys.size("linear_num_key_heads", missing.key_heads, kMostHeads);
  shape.value_heads = keys.size("linear_num_value_heads", missing.value_heads, kMostHeads);
  const int64_t three_quarters = std::max<int64_t>(3 * config.hidden / (4 * shape.key_heads), 1);
  shape.key_dim = keys.size("linear_key_head_dim", missing.key_dim > 0 ? missing.key_dim : three_quarters);
  shape.value_dim = keys.size("linear_value_head_dim", missing.value_dim > 0 ? missing.value_dim : 2 * shape.key_dim);
  config.delta.taps = keys.size("linear_conv_kernel_dim", 4, kMostTaps);
  if (shape.value_heads % shape.key_heads != 0) {
    throw keys.wrong("linear_num_value_heads", cat("is ", shape.value_heads, ", which linear_num_key_heads ",
                                                   shape.key_heads, " does not divide"));
  }
  if (config.delta.mixed_width() > kMostWidth) {
    throw keys.wrong("linear_num_value_heads",
                     cat("and the sizes beside it make queries, keys and values of ", config.delta.mixed_width(),
                         " features, where ", kMostWidth, " are possible"));
  }
}

// Without layer_types, one of each `every` blocks attends.
void place_delta_rule(const Keys& keys, int64_t every, ModelConfig& config) {
  const Json* types = keys.list("layer_types", config.blocks);
  if (types != nullptr) return read_layer_types(keys, *types, "linear_attention", Mixer::delta_rule, config);
  for (int64_t block = 0; block < config.blocks; ++block) {
    if ((block + 1) % every != 0) config.kinds[static_cast<size_t>(block)].mixer = Mixer::delta_rule;
  }
}

}  // namespace

void read_delta_rule(const Keys& keys, ModelConfig& config) {
  read_delta_sizes(keys, {.key_heads = 16, .value_heads = 32, .key_dim = 128, .value_dim = 128}, config);
  place_delta_rule(keys, keys.size("full_attention_interval", 4), config);
}

void read_olmo_hybrid(const Keys& keys, ModelConfig& config) {
  read_delta_sizes(keys, {.key_heads = config.heads, .value_heads = config.heads}, config);
  if (keys.flag("linear_allow_neg_eigval", true)) config.delta.beta_scale = 2;
  for (const char* key :
       {"linear_a_log_min", "linear_a_log_max", "linear_dt_min", "linear_dt_max", "linear_dt_init_floor"})
    keys.find(key);  // of the first weights
  place_delta_rule(keys, std::min<int64_t>(4, config.blocks), config);
  // As released: null, or an object whose members are.
  const auto is_null = [](const Keys& within, const char* key) {
    return within.all().contains(key) && within.find(key) == nullptr;
  };
  const bool has_rope = keys.find("rope_parameters") == nullptr ? !is_null(keys, "rope_parameters")
                                                                : !is_null(keys.object("rope_parameters"), "rope_type");
  if (has_rope) return;
  for (BlockKind& kind : config.kinds) kind.rope = -1;
}

void read_expert_bias(const Keys& keys, ModelConfig& config) {
  if (!keys.flag("use_expert_bias", true)) config.expert_row.choice_bias = "";
}

}  // namespace gptq
