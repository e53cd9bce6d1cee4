// Readers of what Gemma 3n and Gemma 4 have alone.
#include <algorithm>
#include <string>

#include "model/config_keys.h"
#include "model/config_readers.h"

namespace gptq {

namespace {

constexpr int64_t kMostResiduals = 64;

// Blocks that attend to all tokens have heads of another size; their values may be their keys.
void read_full_blocks(const Keys& keys, ModelConfig& config) {
  const bool value_is_key = keys.flag("attention_k_eq_v", false);
  const int64_t head_dim = keys.size("global_head_dim", 512);
  const int64_t key_heads =
      value_is_key ? keys.size("num_global_key_value_heads", config.kv_heads, kMostHeads) : config.kv_heads;
  if (head_dim % 2 != 0) throw keys.wrong("global_head_dim", "is odd, but rotary embeddings need an even one");
  const Json* own = keys.find("per_layer_config");
  for (int64_t block = 0; block < config.blocks; ++block) {
    BlockKind& kind = config.kinds[static_cast<size_t>(block)];
    if (kind.window > 0) continue;
    kind.value_is_key = value_is_key;
    kind.head_dim = head_dim;
    kind.kv_heads = key_heads;
    const std::string index = std::to_string(block);
    if (own == nullptr || !own->is_object() || !own->contains(index)) continue;
    const Keys of_block = keys.object("per_layer_config").object(index);
    kind.head_dim = of_block.size("head_dim", config.head_dim);
    kind.kv_heads = of_block.size("num_key_value_heads", config.kv_heads, kMostHeads);
  }
  for (const BlockKind& kind : config.kinds) {
    if (kind.kv_heads > 0 && config.heads % kind.kv_heads != 0)
      throw keys.wrong("num_global_key_value_heads", cat("is ", kind.kv_heads, ", which does not divide the heads"));
  }
}

// The last blocks take the keys and values of the last block of their kind before them.
void read_shared_keys(const Keys& keys, int64_t missing, ModelConfig& config) {
  const int64_t shared = keys.whole("num_kv_shared_layers", missing), first = config.blocks - shared;
  if (shared < 0 || (shared > 0 && first < 1))
    throw keys.wrong("num_kv_shared_layers", cat("is ", shared, ", where 0 to ", config.blocks - 1, " are possible"));
  const bool wide = keys.flag("use_double_wide_mlp", false);
  for (int64_t block = first; block < config.blocks; ++block) {
    BlockKind& kind = config.kinds[static_cast<size_t>(block)];
    int64_t from = first - 1;
    while (from >= 0 && (config.kinds[static_cast<size_t>(from)].window > 0) != (kind.window > 0)) --from;
    if (from < 0) {
      throw keys.wrong("num_kv_shared_layers",
                       cat("is ", shared, ", but no block before has keys of the kind of block ", block));
    }
    BlockKind& maker = config.kinds[static_cast<size_t>(from)];
    if (maker.keys_at < 0) {
      const int64_t head_dim = maker.head_dim > 0 ? maker.head_dim : config.head_dim,
                    kv_heads = maker.kv_heads > 0 ? maker.kv_heads : config.kv_heads;
      maker.keys_at = config.state_width;
      config.state_width += 2 * kv_heads * head_dim;
    }
    kind.keys_at = maker.keys_at;
    kind.reuses_keys = true;
    if (wide) kind.intermediate = 2 * config.intermediate;
  }
}

void read_per_block(const Keys& keys, int64_t missing, ModelConfig& config) {
  config.per_block = keys.whole("hidden_size_per_layer_input", missing);
  if (config.per_block < 0 || config.per_block > kMostWidth)
    throw keys.wrong("hidden_size_per_layer_input",
                     cat("is ", config.per_block, ", where 0 to ", kMostWidth, " are possible"));
  config.state_width = config.hidden + config.blocks * config.per_block;
  config.per_block_vocabulary = keys.size("vocab_size_per_layer_input", config.vocabulary, kMostTokens);
}

// Bounds of the MLPs' gates: one for each block, or those of the config class.
void read_sparsity(const Keys& keys, ModelConfig& config) {
  const Json* pattern = keys.list("activation_sparsity_pattern", config.blocks);
  for (int64_t block = 0; block < config.blocks; ++block) {
    const Json usual = config.blocks > 10 && block < 10 ? 0.95 : 0.0;
    const Json& sparsity = pattern == nullptr ? usual : (*pattern)[static_cast<size_t>(block)];
    if (!sparsity.is_number() || sparsity.get<double>() < 0 || sparsity.get<double>() >= 1)
      throw keys.wrong("activation_sparsity_pattern",
                       cat("has ", shown(sparsity), ", where shares below 1 are needed"));
    config.kinds[static_cast<size_t>(block)].sparsity = sparsity.get<double>();
  }
}

}  // namespace

void read_gemma4(const Keys& keys, ModelConfig& config) {
  read_root_embedding_scale(keys, config);
  read_logit_cap(keys, config);
  for (BlockKind& kind : config.kinds) kind.score_scale = 1;
  config.kinds.back().window = 0;
  config.state_width = config.hidden;
  if (!config.architecture->per_block.embedding.empty()) read_per_block(keys, 0, config);
  if (config.per_block > 0 && config.per_block_vocabulary != config.vocabulary)
    throw UnsupportedError(
        cat(keys.where(), ": vocab_size_per_layer_input differs from vocab_size, which is not supported"));
  read_full_blocks(keys, config);
  read_shared_keys(keys, 0, config);
  const auto full =
      std::find_if(config.kinds.begin(), config.kinds.end(), [](const BlockKind& kind) { return kind.window == 0; });
  const bool has_ropes = keys.find("rope_parameters") != nullptr;
  Rope rope{.kind = RopeKind::proportional, .theta = 1e6, .rotary_dim = full->head_dim, .rotated = 0.25};
  if (has_ropes) rope = parse_rope(keys, *config.architecture, full->head_dim, config.max_positions);
  Rope local{.theta = 10000, .rotary_dim = config.head_dim};
  if (has_ropes)
    local = parse_rope(keys, *config.architecture, config.head_dim, config.max_positions, "sliding_attention");
  config.ropes = {rope};
  give_windowed_blocks(local, config);
  if (!keys.flag("enable_moe_block", false)) {
    for (const char* key : {"num_experts", "top_k_experts", "moe_intermediate_size"}) keys.find(key);
    return;
  }
  read_experts(keys, config);
  config.experts.shared_intermediate = config.intermediate;
}

void read_gemma3n(const Keys& keys, ModelConfig& config) {
  for (BlockKind& kind : config.kinds) kind.score_scale = 1;
  if (!keys.all().contains("final_logit_softcapping")) config.logit_cap = 30;
  read_logit_cap(keys, config);
  read_per_block(keys, 256, config);
  read_shared_keys(keys, 15, config);
  read_sparsity(keys, config);
  config.laurel_rank = keys.size("laurel_rank", 64);
  config.residuals = keys.size("altup_num_inputs", 4, kMostResiduals);
  config.scales_output = keys.flag("altup_correct_scale", true);
  for (const char* key : {"altup_coef_clip", "altup_lr_multiplier", "query_pre_attn_scalar"})
    keys.find(key);  // of training; and one that early releases have, though no score is divided by it
  if (config.residuals < 2)
    throw UnsupportedError(cat(keys.where(), ": altup_num_inputs is 1; supported are 2 to ", kMostResiduals));
  if (const int64_t active = keys.whole("altup_active_idx", 0); active != 0)
    throw UnsupportedError(cat(keys.where(), ": altup_active_idx is ", active, "; only 0 is supported"));
  config.residuals_at = config.state_width;
  config.state_width += config.residuals * config.hidden;
}

}  // namespace gptq
