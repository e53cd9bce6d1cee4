// Readers of keys of config.json that no field of Architecture describes; each is for the rows that name it.
#pragma once

#include "model/architecture.h"

namespace gptq {

class Keys;

// The rope of the blocks of kind `blocks` ("full_attention", "sliding_attention") if config.json has one per kind, as
// in transformers 5; else the common one.
Rope parse_rope(const Keys& config, const Architecture& row, int64_t head_dim, int64_t max_positions,
                const std::string& blocks = "full_attention");

// Blocks with a window get a rope of their own.
void give_windowed_blocks(Rope rope, ModelConfig& config);

// Gemma: embeddings are multiplied by sqrt(hidden_size).
void read_root_embedding_scale(const Keys& keys, ModelConfig& config);
// Gemma 2 and 3: query_pre_attn_scalar, attn_logit_softcapping, final_logit_softcapping.
void read_soft_caps(const Keys& keys, ModelConfig& config);
// Gemma 3: blocks with a window have a rope of their own, rope_local_base_freq.
void read_local_rope(const Keys& keys, ModelConfig& config);
// Olmo 3: blocks with a window have a rope without rope_scaling.
void read_unscaled_local_rope(const Keys& keys, ModelConfig& config);
// Granite: embedding_multiplier, attention_multiplier, residual_multiplier, logits_scaling.
void read_multipliers(const Keys& keys, ModelConfig& config);
// Cohere: logit_scale.
void read_logit_scale(const Keys& keys, ModelConfig& config);
// MiniCPM: scale_emb, scale_depth, dim_model_base.
void read_depth_scales(const Keys& keys, ModelConfig& config);
// OLMo and DBRX: clip_qkv.
void read_clip_qkv(const Keys& keys, ModelConfig& config);
// GPT-2: scale_attn_weights, scale_attn_by_inverse_layer_idx.
void read_score_scales(const Keys& keys, ModelConfig& config);
// GPT-Neo: attention_layers or attention_types, global or local with window_size.
void read_local_blocks(const Keys& keys, ModelConfig& config);
// Qwen: only blocks from max_window_layers on have a window.
void read_first_window(const Keys& keys, ModelConfig& config);
// Code World Model: without layer_types, the first of each four blocks has no window.
void read_first_of_four(const Keys& keys, ModelConfig& config);
// Mellum: without layer_types no block has a window; blocks with one have a rope of their own.
void read_typed_ropes(const Keys& keys, ModelConfig& config);
// SmolLM3 and Llama 4: no_rope_layers, or every no_rope_layer_interval-th block has no rope.
void read_unrotated_blocks(const Keys& keys, ModelConfig& config);
// MPT: attn_config, no_bias for the sizes, expansion_ratio.
void read_mpt_attention(const Keys& keys, ModelConfig& config);
// OPT: norms without tensors; throws for models with norms after the addition, or with embeddings of another width.
void read_opt(const Keys& keys, ModelConfig& config);
// Bloom: throws for apply_residual_connection_post_layernorm.
void refuse_normed_residual(const Keys& keys, ModelConfig& config);
// HunYuan: rope_scaling of type dynamic with an alpha means longer wavelengths for all lengths.
void read_rope_alpha(const Keys& keys, ModelConfig& config);
// DeepSeek-V2 and V3: q_lora_rank, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim.
void read_latent(const Keys& keys, ModelConfig& config);
// The number of experts, how many a token passes, their size and groups, and which blocks have them.
void read_experts(const Keys& keys, ModelConfig& config);
// ERNIE 4.5 VL: the same of the experts for text, where a list has a number for text and one for images.
void read_text_experts(const Keys& keys, ModelConfig& config);
// Hunyuan: a shared expert of the size of the others.
void read_one_shared_expert(const Keys& keys, ModelConfig& config);
// Llama 4: chunks and temperature of the attention, and the size of blocks without experts.
void read_llama4(const Keys& keys, ModelConfig& config);
// Ministral 3: llama_4_scaling_beta.
void read_query_scaling(const Keys& keys, ModelConfig& config);
// gpt-oss: swiglu_limit and the rest of its activation.
void read_clamped_swiglu(const Keys& keys, ModelConfig& config);
// Gemma: hidden_act gelu is the tanh approximation.
void read_old_gelu(const Keys& keys, ModelConfig& config);
// Phi-3.5-MoE: short_mscale, long_mscale.
void read_mscales(const Keys& keys, ModelConfig& config);
// Baichuan 2, recognized by its z_loss_weight: the normalized head (NormHead).
void read_unit_head(const Keys& keys, ModelConfig& config);
// Falcon: scores are multiplied by 1 / sqrt(head_dim) after ALiBi's bias is added.
void read_scaled_slopes(const Keys& keys, ModelConfig& config);

// Those of family_readers.cpp.

// HyperCLOVA X: Granite's multipliers, but logits are multiplied by logits_scaling.
void read_clova_multipliers(const Keys& keys, ModelConfig& config);
// Granite Swash: layer_rope_theta, a rope for each block or none.
void read_block_thetas(const Keys& keys, ModelConfig& config);
// nanochat: rope turns by the opposite angles.
void read_reversed_rope(const Keys& keys, ModelConfig& config);
// nanochat: final_logit_softcapping.
void read_logit_cap(const Keys& keys, ModelConfig& config);
// BioGPT: embeddings are multiplied by sqrt(hidden_size) if scale_embedding.
void read_switched_embedding_scale(const Keys& keys, ModelConfig& config);
// Trinity: the same if mup_enabled.
void read_mup_embedding_scale(const Keys& keys, ModelConfig& config);
// DeepSeek-V3.2 and GLM-5: attention to index_topk tokens, which is dense up to so many.
void read_indexed_attention(const Keys& keys, ModelConfig& config);
// Laguna: gating, num_attention_heads_per_layer; throws for what transformers refuses.
void read_laguna_attention(const Keys& keys, ModelConfig& config);
// OpenELM: num_query_heads, num_kv_heads and ffn_multipliers of each block, rope_freq_constant.
void read_openelm(const Keys& keys, ModelConfig& config);
// Nemotron-NAS: block_configs, the heads and MLP of each block.
void read_nas_blocks(const Keys& keys, ModelConfig& config);
// Gemma 3n: its residuals (AltUp) and LAuReL, embeddings per block, keys shared between blocks, sparse gates.
void read_gemma3n(const Keys& keys, ModelConfig& config);
// Gemma 4: sizes, ropes and keys of its two kinds of blocks, keys shared between blocks, embeddings per block.
void read_gemma4(const Keys& keys, ModelConfig& config);
// Apertus: hidden_act, and the rope that its config class has where config.json has none.
void read_apertus(const Keys& keys, ModelConfig& config);
// MiMo V2: heads of keys, sinks and ropes of blocks with a window, narrow values.
void read_mimo(const Keys& keys, ModelConfig& config);
// MiniMax M3: its activation, the size of blocks without experts, and attention to chosen blocks of tokens.
void read_minimax_m3(const Keys& keys, ModelConfig& config);
// Llama 3.2 Vision: blocks with cross-attention, which text does not pass.
void read_cross_attention(const Keys& keys, ModelConfig& config);
// Compass: ropes of its two kinds of blocks, each of which may be null; logit_scale.
void read_compass(const Keys& keys, ModelConfig& config);
// GPT-NeoX Japanese: intermediate_multiple_size.
void read_multiple_size(const Keys& keys, ModelConfig& config);
// ModernBERT decoders: windows of half of local_attention, and two ropes.
void read_modernbert(const Keys& keys, ModelConfig& config);
// Flint: without layer_types and mlp_only_layers, which blocks have a window, and which experts.
void read_flint_blocks(const Keys& keys, ModelConfig& config);
// Command A with experts: its norms, router, shared experts and the blocks without experts.
void read_cohere2_moe(const Keys& keys, ModelConfig& config);

}  // namespace gptq
