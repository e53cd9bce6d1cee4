// Rows of the families of Gemma.
#include "model/architectures.h"
#include "model/config_readers.h"

namespace gptq {
namespace {

Architecture gemma() {
  return {.model_types = {"gemma"},
          .models = "Gemma 2B, 7B, CodeGemma",
          .norm_weight = NormWeight::plus_one,
          .mlp_bias = kNo,
          .tied = {"tie_word_embeddings", true},
          .activation = "gelu_pytorch_tanh",
          .also = {read_root_embedding_scale, read_old_gelu}};
}

Architecture gemma2() {
  Architecture row = gemma();
  row.model_types = {"gemma2"};
  row.models = "Gemma 2";
  row.attention_post_norm = "post_attention_layernorm";
  row.mlp_norm = "pre_feedforward_layernorm";
  row.mlp_post_norm = "post_feedforward_layernorm";
  row.activation_key = "hidden_activation";
  row.window = "sliding_window";
  row.full_every = 2;
  row.also = {read_root_embedding_scale, read_soft_caps};
  return row;
}

Architecture gemma3() {
  Architecture row = gemma2();
  row.model_types = {"gemma3_text"};
  row.models = "Gemma 3, also inside gemma3";
  row.missing = {.heads = 8, .key_heads = 4, .head_dim = 256, .vocabulary = 262208, .positions = 131072};
  row.q_norm = "self_attn.q_norm";
  row.k_norm = "self_attn.k_norm";
  row.rope_theta = 1e6;
  row.full_every = 6;
  row.also = {read_root_embedding_scale, read_soft_caps, read_local_rope};
  return row;
}

Architecture vaultgemma() {
  Architecture row = gemma2();
  row.model_types = {"vaultgemma"};
  row.models = "VaultGemma 1B";
  row.lacking = {{"GPTQModel", ""}};
  row.attention_post_norm = row.mlp_post_norm = "";
  return row;
}

PerBlockRow per_block_embeddings() {
  return {.embedding = "embed_tokens_per_layer",
          .projection = "per_layer_model_projection",
          .projection_norm = "per_layer_projection_norm",
          .gate = "per_layer_input_gate",
          .out = "per_layer_projection",
          .post_norm = "post_per_layer_input_norm"};
}

// Several residuals, keys and values shared between blocks, embeddings per block, sparse gates.
Architecture gemma3n() {
  Architecture row = gemma2();
  row.model_types = {"gemma3n_text"};
  row.models = "Gemma 3n E2B, E4B, inside gemma3n, as text";
  row.missing = {.heads = 8, .key_heads = 2, .head_dim = 256, .vocabulary = 262400, .positions = 32768};
  row.q_norm = "self_attn.q_norm";
  row.k_norm = "self_attn.k_norm";
  row.v_normed = true;
  row.norm_weight = NormWeight::stored;
  row.per_block = per_block_embeddings();
  row.altup = {.projections = "altup_projections",
               .unembed_projections = "altup_unembed_projections",
               .router_norm = "altup.router_norm",
               .router = "altup.modality_router",
               .prediction_coefficients = "altup.prediction_coefs",
               .correction_coefficients = "altup.correction_coefs",
               .output_scale = "altup.correct_output_scale"};
  row.laurel = {.left = "laurel.linear_left", .right = "laurel.linear_right", .post_norm = "laurel.post_laurel_norm"};
  row.rope_theta = 1e6;
  row.full_every = 5;
  row.also = {read_root_embedding_scale, read_local_rope, read_gemma3n};
  return row;
}

// Heads of two sizes, keys and values shared between blocks, embeddings per block, experts beside the MLP.
Architecture gemma4() {
  Architecture row = gemma2();
  row.model_types = {"gemma4_text"};
  row.models = "Gemma 4 E2B, E4B, 26B-A4B, 31B, inside gemma4";
  row.lacking = {};
  row.q_norm = "self_attn.q_norm";
  row.k_norm = "self_attn.k_norm";
  row.v_normed = true;
  row.norm_weight = NormWeight::stored;
  row.block_scale = "layer_scalar";
  row.per_block = per_block_embeddings();
  row.experts = {.router = "router.proj",
                 .gate = "experts.#.gate_proj",
                 .up = "experts.#.up_proj",
                 .down = "experts.#.down_proj",
                 .tensors = ExpertTensors::halves,
                 .stored_gate_up = "experts.gate_up_proj",
                 .stored_down = "experts.down_proj",
                 .shared_gate = "mlp.gate_proj",
                 .shared_up = "mlp.up_proj",
                 .shared_down = "mlp.down_proj",
                 .beside_norm = "pre_feedforward_layernorm_2",
                 .beside_post_norm = "post_feedforward_layernorm_2",
                 .shared_post_norm = "post_feedforward_layernorm_1",
                 .router_norm = "router.scale",
                 .expert_scales = "router.per_expert_scale",
                 .renormalized = kYes};
  row.q_bias = row.kv_bias = row.o_bias = {"attention_bias"};
  row.full_every = 6;
  row.scaled_scores = false;
  row.also = {read_gemma4};
  return row;
}

Architecture gemma4_unified() {
  Architecture row = gemma4();
  row.model_types = {"gemma4_unified_text"};
  row.models = "Gemma 4 12B, inside gemma4_unified";
  row.per_block = {};
  row.experts = {};
  return row;
}

}  // namespace

std::vector<Architecture> gemma_architectures() {
  return {gemma(), gemma2(), gemma3(), gemma3n(), vaultgemma(), gemma4(), gemma4_unified()};
}

}  // namespace gptq
