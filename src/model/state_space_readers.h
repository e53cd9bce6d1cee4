// Readers of keys of config.json of families with state spaces; each is for the rows that name it.
#pragma once

#include "model/architecture.h"

namespace gptq {

class Keys;

// Bamba, Granite 4 and Falcon-H1: mamba_n_heads, mamba_d_head, mamba_n_groups, mamba_d_state, mamba_d_conv, ...
void read_hybrid_state_space(const Keys& keys, ModelConfig& config);
// Bamba: attn_layer_indices.
void read_attending_blocks(const Keys& keys, ModelConfig& config);
// Granite 4: layer_types or layers_block_type; position_embedding_type; shared_intermediate_size without experts.
void read_granite_hybrid(const Keys& keys, ModelConfig& config);
// Falcon-H1: both mixers in each block, and its multipliers.
void read_falcon_h1(const Keys& keys, ModelConfig& config);
// Nemotron-H: layers_block_type or hybrid_override_pattern, its state space, and its experts.
void read_nemotron_h(const Keys& keys, ModelConfig& config);
// Jamba: which blocks attend, which have experts, and its state space.
void read_jamba(const Keys& keys, ModelConfig& config);
// Mamba-2, Mamba and Falcon-Mamba: state_size, conv_kernel, expand, ...; every block is one mixer.
void read_mamba2(const Keys& keys, ModelConfig& config);
void read_mamba(const Keys& keys, ModelConfig& config);

}  // namespace gptq
