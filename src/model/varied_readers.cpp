// Readers of the sizes of families whose blocks differ in size.
#include <algorithm>
#include <string_view>
#include <vector>

#include "base/rounding.h"
#include "model/config_keys.h"
#include "model/config_readers.h"

namespace gptq {
namespace {

// The multiple of `divisor` that is next to `value`, but not below nine tenths of it.
int64_t next_multiple(double value, int64_t divisor) {
  const int64_t nearest = static_cast<int64_t>(value + static_cast<double>(divisor) / 2) / divisor * divisor,
                multiple = std::max(divisor, nearest);
  return static_cast<double>(multiple) < 0.9 * value ? multiple + divisor : multiple;
}

// A width that numbers of config.json make.
double possible_width(const Keys& keys, const std::string& key, double width) {
  if (width >= 1 && width <= static_cast<double>(kMostWidth)) return width;
  throw keys.wrong(key, cat("makes MLPs of ", width, " features, where 1 to ", kMostWidth, " are possible"));
}

// Throws for a key of a block that neither is known nor blank: it may change what the block computes.
void refuse_others(const Keys& part, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : part.all().items()) {
    const bool is_known = std::find(known.begin(), known.end(), key) != known.end();
    if (is_known || value.is_null() || value == false) continue;
    throw UnsupportedError(cat(part.where(), ": '", key, "' is ", shown(value), ", which is not supported"));
  }
}

// A block's attention, or none.
void read_nas_attention(const Keys& part, const ModelConfig& config, BlockKind& kind) {
  refuse_others(part, {"no_op", "n_heads_in_group"});
  if (part.flag("no_op", false)) {
    kind.mixer = Mixer::none;
    return;
  }
  const int64_t group = part.size("n_heads_in_group", 1, kMostHeads);
  if (config.heads % group != 0)
    throw part.wrong("n_heads_in_group", cat("is ", group, ", which does not divide the ", config.heads, " heads"));
  kind.kv_heads = config.heads / group;
}

// A block's MLP, or none.
void read_nas_mlp(const Keys& part, const ModelConfig& config, BlockKind& kind) {
  refuse_others(part, {"no_op", "ffn_mult"});
  kind.has_mlp = !part.flag("no_op", false);
  if (!kind.has_mlp) return;
  if (part.find("ffn_mult") == nullptr) throw part.wrong("ffn_mult", "is missing");
  const double width = 2 * part.positive("ffn_mult", 1) * static_cast<double>(config.hidden) / 3;
  kind.intermediate = rounded_up(static_cast<int64_t>(possible_width(part, "ffn_mult", width)), 256);
}

}  // namespace

void read_openelm(const Keys& keys, ModelConfig& config) {
  const std::vector<int64_t> heads = keys.sizes("num_query_heads", config.blocks, kMostHeads),
                             key_heads = keys.sizes("num_kv_heads", config.blocks, kMostHeads);
  const int64_t divisor = keys.size("ffn_dim_divisor", 256);
  const Json* multipliers = keys.list("ffn_multipliers", config.blocks);
  if (multipliers == nullptr) throw keys.wrong("ffn_multipliers", "is missing");
  config.intermediate = 0;
  for (size_t block = 0; block < heads.size(); ++block) {
    BlockKind& kind = config.kinds[block];
    if (heads[block] % key_heads[block] != 0)
      throw keys.wrong("num_query_heads",
                       cat("has ", heads[block], ", which ", key_heads[block], " of num_kv_heads does not divide"));
    const Json& multiplier = (*multipliers)[block];
    if (!multiplier.is_number()) throw keys.wrong("ffn_multipliers", cat("has ", shown(multiplier), ", not a number"));
    kind.heads = heads[block];
    kind.kv_heads = key_heads[block];
    const double width = multiplier.get<double>() * static_cast<double>(config.hidden);
    kind.intermediate = next_multiple(possible_width(keys, "ffn_multipliers", width), divisor);
    config.heads = std::max(config.heads, kind.heads);
    config.intermediate = std::max(config.intermediate, kind.intermediate);
  }
  config.kv_heads = config.heads;
  config.ropes[0].theta = keys.above(1, "rope_freq_constant", 10000);
  for (const char* key : {"num_gqa_groups", "qkv_multipliers", "rope_max_length"}) keys.find(key);  // derived ones
  if (!keys.flag("ffn_with_glu", true))
    throw UnsupportedError(cat(keys.where(), ": ffn_with_glu is false; only true is supported"));
  if (const std::string norm = keys.word("normalization_layer_name", "rms_norm"); norm != "rms_norm")
    throw UnsupportedError(cat(keys.where(), ": normalization_layer_name is '", norm, "'; supported is rms_norm"));
}

void read_nas_blocks(const Keys& keys, ModelConfig& config) {
  const Json* blocks = keys.list("block_configs", config.blocks);
  if (blocks == nullptr) throw keys.wrong("block_configs", "is missing");
  std::vector<BlockKind> kinds;
  config.intermediate = 1;
  for (int64_t block = 0; block < config.blocks; ++block) {
    BlockKind kind = config.kinds[static_cast<size_t>(block)];
    const Keys own((*blocks)[static_cast<size_t>(block)], cat(keys.where(), ": block_configs[", block, "]"));
    for (const char* part : {"attention", "ffn"})
      if (own.find(part) == nullptr) throw own.wrong(part, "is missing");
    refuse_others(own, {"attention", "ffn"});
    read_nas_attention(own.object("attention"), config, kind);
    read_nas_mlp(own.object("ffn"), config, kind);
    if (kind.mixer == Mixer::none && !kind.has_mlp) continue;  // it does nothing
    config.intermediate = std::max(config.intermediate, kind.intermediate);
    config.places.push_back(block);
    kinds.push_back(kind);
  }
  if (kinds.empty()) throw keys.wrong("block_configs", "has no block that computes anything");
  config.kinds = std::move(kinds);
  config.blocks = static_cast<int64_t>(config.places.size());
}

}  // namespace gptq
