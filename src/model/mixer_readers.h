// Readers of keys of config.json that say which blocks mix tokens by something other than attention, and how.
#pragma once

#include "model/architecture.h"

namespace gptq {

// LFM2: layer_types or full_attn_idxs, conv_L_cache, conv_bias.
void read_short_convolutions(const Keys& keys, ModelConfig& config);
// LFM2: block_auto_adjust_ff_dim, block_ffn_dim_multiplier, block_multiple_of make intermediate_size smaller.
void read_adjusted_width(const Keys& keys, ModelConfig& config);
// LFM3: layer_types with a window and a rope for each kind, conv_L_cache, conv_bias, use_attention_gate.
void read_lfm3(const Keys& keys, ModelConfig& config);
// Qwen3-Next: layer_types or full_attention_interval, linear_num_key_heads, linear_key_head_dim and the like.
void read_delta_rule(const Keys& keys, ModelConfig& config);
// Olmo Hybrid: the same sizes with defaults of its own, linear_allow_neg_eigval, and no rope where it is null.
void read_olmo_hybrid(const Keys& keys, ModelConfig& config);
// LFM2: use_expert_bias.
void read_expert_bias(const Keys& keys, ModelConfig& config);

}  // namespace gptq
