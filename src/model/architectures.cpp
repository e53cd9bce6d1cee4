// The table of model families: one row per family, with the names of its Hugging Face checkpoints. Defaults are
// Llama's. Families of one kind have files of their own (architectures.h).
#include "model/architectures.h"

#include <algorithm>
#include <iterator>

#include "model/config_readers.h"

namespace gptq {
namespace {

Architecture phi() {
  return {.model_types = {"phi"},
          .models = "Phi-1, 1.5, 2",
          .final_norm = "final_layernorm",
          .mlp_norm = "",
          .o = "self_attn.dense",
          .q_norm = "self_attn.q_layernorm",
          .k_norm = "self_attn.k_layernorm",
          .gate = "",
          .up = "mlp.fc1",
          .down = "mlp.fc2",
          .norm = NormKind::layer,
          .norm_bias = kYes,
          .norm_eps = 1e-5,
          .qk_normed = {"qk_layernorm"},
          .parallel = kYes,
          .partial_rotary = 0.5,
          .q_bias = kYes,
          .kv_bias = kYes,
          .o_bias = kYes,
          .mlp_bias = kYes,
          .head_bias = kYes,
          .activation = "gelu_new"};
}

Architecture stablelm() {
  return {.model_types = {"stablelm"},
          .models = "StableLM 2 1.6B, 3B 4E1T, Zephyr",
          .when = {{"use_parallel_residual", "false", "false"}},
          .q_norm = "self_attn.q_layernorm",
          .k_norm = "self_attn.k_layernorm",
          .norm = NormKind::layer,
          .norm_bias = kYes,
          .norm_eps = 1e-5,
          .qk_norm = QkNorm::each_head,
          .qk_norm_list = "norms",
          .qk_normed = {"qk_layernorm"},
          .partial_rotary = 0.25,
          .q_bias = {"use_qkv_bias"},
          .kv_bias = {"use_qkv_bias"},
          .o_bias = kNo,
          .mlp_bias = kNo};
}

Architecture stablelm_parallel() {
  Architecture row = stablelm();
  row.models = "StableLM 2 12B";
  row.when = {{"use_parallel_residual", "true", "false"}};
  row.mlp_norm = "";
  row.parallel = kYes;
  return row;
}

Architecture cohere() {
  return {.model_types = {"cohere"},
          .models = "Command R, Command R+, Aya 23",
          .mlp_norm = "",
          .q_norm = "self_attn.q_norm",
          .k_norm = "self_attn.k_norm",
          .norm = NormKind::layer,
          .norm_eps = 1e-5,
          .qk_norm = QkNorm::each_head,
          .qk_normed = {"use_qk_norm"},
          .parallel = kYes,
          .rotary_order = RotaryOrder::interleaved,
          .rope_theta = 500000,
          .mlp_bias = kNo,
          .tied = {"tie_word_embeddings", true},
          .also = {read_logit_scale}};
}

// Mllama's blocks with cross-attention stay as they are.
Architecture mllama() {
  return {.model_types = {"mllama_text_model"},
          .models = "Llama 3.2 Vision 11B, 90B, inside mllama, as text",
          .lacking = {{"vLLM", ""}},
          .embedding_extra = 8,
          .norm_eps = 1e-5,
          .rope_theta = 5e5,
          .q_bias = kNo,
          .kv_bias = kNo,
          .o_bias = kNo,
          .mlp_bias = kNo,
          .also = {read_cross_attention}};
}

Architecture cohere2() {
  Architecture row = cohere();
  row.model_types = {"cohere2"};
  row.models = "Command R7B, Command A, Aya Expanse 2";
  row.qk_normed = kNo;
  row.rope_theta = 10000;
  row.window = "sliding_window";
  row.full_every = 4;
  row.full_is_unrotated = true;
  return row;
}

Architecture olmo2() {
  return {.model_types = {"olmo2"},
          .models = "OLMo 2",
          .attention_norm = "",
          .attention_post_norm = "post_attention_layernorm",
          .mlp_norm = "",
          .mlp_post_norm = "post_feedforward_layernorm",
          .q_norm = "self_attn.q_norm",
          .k_norm = "self_attn.k_norm",
          .norm_eps = 1e-5,
          .qk_norm = QkNorm::whole,
          .mlp_bias = kNo};
}

Architecture olmo3() {
  Architecture row = olmo2();
  row.model_types = {"olmo3"};
  row.models = "Olmo 3";
  row.rope_theta = 500000;
  row.window = "sliding_window";
  row.full_every = 4;
  row.also = {read_unscaled_local_rope};
  return row;
}

Architecture exaone4() {
  Architecture row = olmo2();
  row.model_types = {"exaone4"};
  row.models = "EXAONE 4.0";
  row.qk_norm = QkNorm::head;
  row.q_bias = row.kv_bias = row.o_bias = kNo;
  row.window = "sliding_window";
  row.full_every = 4;
  row.full_is_unrotated = true;
  return row;
}

Architecture glm() {
  return {.model_types = {"glm"},
          .models = "GLM-4 9B, GLM-Edge",
          .gate_up = "mlp.gate_up_proj",
          .norm_eps = 1.5625e-7,
          .rotary_order = RotaryOrder::interleaved,
          .partial_rotary = 0.5,
          .q_bias = {"attention_bias", true},
          .kv_bias = {"attention_bias", true},
          .o_bias = kNo,
          .mlp_bias = kNo};
}

Architecture glm4() {
  Architecture row = glm();
  row.model_types = {"glm4"};
  row.models = "GLM-4-0414 9B, 32B, GLM-Z1";
  row.attention_post_norm = "post_self_attn_layernorm";
  row.mlp_post_norm = "post_mlp_layernorm";
  return row;
}

Architecture glm4v() {
  Architecture row = glm4();
  row.model_types = {"glm4v_text"};
  row.models = "GLM-4.1V 9B, GLM-4.6V-Flash, inside glm4v and glm46v";
  row.norm_eps = 1e-5;
  row.partial_rotary = 1;
  row.q_bias = row.kv_bias = kYes;
  return row;
}

// Qwen2's blocks; positions of text are those of mrope's first axis.
Architecture qwen2_vl() {
  Architecture row = qwen2_row();
  row.model_types = {"qwen2_vl_text", "qwen2_5_vl_text", "qwen2_vl", "qwen2_5_vl"};
  row.models = "Qwen2-VL, Qwen2.5-VL";
  row.norm_eps = 1e-5;
  row.rope_theta = 1e6;
  return row;
}

Architecture exaone() {
  return {.model_types = {"exaone"},
          .models = "EXAONE 3.0, 3.5, Deep",
          .root = "transformer",
          .embedding = "wte",
          .blocks = "h",
          .final_norm = "ln_f",
          .attention_norm = "ln_1",
          .mlp_norm = "ln_2",
          .q = "attn.attention.q_proj",
          .k = "attn.attention.k_proj",
          .v = "attn.attention.v_proj",
          .o = "attn.attention.out_proj",
          .gate = "mlp.c_fc_0",
          .up = "mlp.c_fc_1",
          .down = "mlp.c_proj",
          .fused_qkv = "attn.attention.qkv_proj",
          .norm_eps = 1e-5,
          .rope_theta = 500000,
          .activation_key = "activation_function"};
}

Architecture baichuan() {
  return {.model_types = {"baichuan"},
          .models = "Baichuan 13B, Baichuan 2 13B",
          .lacking = {{"transformers", ""}},
          .when = {{"max_position_embeddings", "null"}},
          .qkv = "self_attn.W_pack",
          .positions = Positions::alibi,
          .has_key_heads = false,
          .q_bias = kNo,
          .kv_bias = kNo,
          .o_bias = kNo,
          .mlp_bias = kNo,
          .also = {read_unit_head}};
}

Architecture granite() {
  return {.model_types = {"granite"}, .models = "Granite 3.0 to 3.3, Granite Code", .also = {read_multipliers}};
}

// Sinks in all blocks, a window in three of four, and a rope for each block.
Architecture granite_swa() {
  Architecture row = granite();
  row.model_types = {"granite_swa"};
  row.models = "Granite Swash 2B";
  row.lacking = {{"GPTQModel", ""}};
  row.sinks = "self_attn.sinks";
  row.norm_eps = 1e-5;
  row.tied = {"tie_word_embeddings", true};
  row.window = "sliding_window";
  row.also = {read_multipliers, read_first_of_four, read_block_thetas};
  return row;
}

Architecture hyperclovax() {
  Architecture row = granite();
  row.model_types = {"hyperclovax"};
  row.models = "HyperCLOVA X SEED Think 14B";
  row.lacking = {{"GPTQModel", ""}};
  row.attention_post_norm = "post_norm1";
  row.mlp_post_norm = "post_norm2";
  row.post_normed = {"use_post_norm", true};
  row.also = {read_clova_multipliers};
  return row;
}

Architecture jais2() {
  return {.model_types = {"jais2"},
          .models = "Jais 2 8B, 70B",
          .lacking = {{"GPTQModel", ""}},
          .gate = "",
          .norm = NormKind::layer,
          .norm_bias = kYes,
          .norm_eps = 1e-5,
          .q_bias = {"attention_bias", true},
          .kv_bias = {"attention_bias", true},
          .o_bias = {"attention_bias", true},
          .mlp_bias = {"mlp_bias", true},
          .activation = "relu2"};
}

// Norms without weights, one of them after the embedding, and rope turned the other way.
Architecture nanochat() {
  return {.model_types = {"nanochat"},
          .models = "nanochat d20 to d32",
          .lacking = {{"GPTQModel", ""}, {"vLLM", ""}},
          .embedding_norm = "norm",
          .gate = "",
          .up = "mlp.fc1",
          .down = "mlp.fc2",
          .norm_weight = NormWeight::none,
          .qk_norm = QkNorm::unweighted,
          .qk_norm_after_rope = true,
          .mlp_bias = kNo,
          .activation = "relu2",
          .also = {read_reversed_rope, read_logit_cap}};
}

// An MLP whose activation has two learned numbers.
Architecture apertus() {
  return {.model_types = {"apertus", "apertus1p5_text"},
          .models = "Apertus 8B, 70B, 1.5",
          .attention_norm = "attention_layernorm",
          .mlp_norm = "feedforward_layernorm",
          .q_norm = "self_attn.q_norm",
          .k_norm = "self_attn.k_norm",
          .gate = "",
          .activation_alphas = "mlp.act_fn",
          .norm_eps = 1e-5,
          .rope_theta = 12e6,
          .mlp_bias = kNo,
          .activation_key = "",
          .also = {read_apertus}};
}

Architecture cohere_compass() {
  Architecture row = cohere2();
  row.model_types = {"cohere_compass_text"};
  row.models = "Cohere Compass";
  row.rotary_order = RotaryOrder::halves;
  row.lacking = {{"GPTQModel", ""}, {"vLLM", ""}};
  row.full_is_unrotated = false;
  row.full_every = 1;
  row.full_every_key = "";
  row.also = {read_compass};
  return row;
}

// A norm of the embedding, none in the first block, and a head of two linears.
Architecture modernbert_decoder() {
  return {.model_types = {"modernbert-decoder"},
          .models = "Ettin decoders 17M to 1B",
          .lacking = {{"GPTQModel", ""}, {"vLLM", ""}},
          .embedding = "embeddings.tok_embeddings",
          .embedding_norm = "embeddings.norm",
          .final_norm = "final_norm",
          .head = "decoder",
          .head_dense = "lm_head.dense",
          .head_norm = "lm_head.norm",
          .attention_norm = "attn_norm",
          .first_unnormed = true,
          .mlp_norm = "mlp_norm",
          .q = "attn.q_proj",
          .k = "attn.k_proj",
          .v = "attn.v_proj",
          .o = "attn.Wo",
          .down = "mlp.Wo",
          .gate_up = "mlp.Wi",
          .norm = NormKind::layer,
          .norm_bias = {"norm_bias"},
          .norm_eps = 1e-5,
          .has_key_heads = false,
          .head_bias = {"decoder_bias", true},
          .tied = {"tie_word_embeddings", true},
          .activation_key = "hidden_activation",
          .activation = "gelu",
          .also = {read_modernbert}};
}

std::vector<Architecture> make_table() {
  std::vector<Architecture> table = {
      {.model_types = {"llama"},
       .models = "Llama 1 to 3.3, CodeLlama, Vicuna, TinyLlama, SmolLM, Yi, SOLAR, DeepSeek LLM"},
      {.model_types = {"ministral3"},
       .models = "Ministral 3, also inside mistral3",
       .norm_eps = 1e-5,
       .q_bias = kNo,
       .kv_bias = kNo,
       .o_bias = kNo,
       .mlp_bias = kNo,
       .window = "sliding_window",
       .also = {read_query_scaling}},
      {.model_types = {"mistral", "ministral"},
       .models = "Mistral 7B to Large, Nemo, Codestral, Zephyr, Ministral 8B",
       .q_bias = kNo,
       .kv_bias = kNo,
       .o_bias = kNo,
       .mlp_bias = kNo,
       .window = "sliding_window"},
      {.model_types = {"cwm"},
       .models = "Code World Model 32B",
       .lacking = {{"GPTQModel", ""}},
       .norm_eps = 1e-5,
       .rope_theta = 1e6,
       .q_bias = kNo,
       .kv_bias = kNo,
       .o_bias = kNo,
       .mlp_bias = kNo,
       .window = "sliding_window",
       .also = {read_first_of_four}},
      {.model_types = {"iquestcoder"}, .models = "IQuest-Coder 40B", .lacking = {{"GPTQModel", ""}}, .norm_eps = 1e-5},
      qwen2_row(),
      qwen2_vl(),
      qwen3_row(),
      qwen3_vl_row(),
      phi(),
      {.model_types = {"phi3", "phi4_multimodal"},
       .models = "Phi-3 mini, medium, Phi-3.5 mini, Phi-4, Phi-4 mini, Phi-4 multimodal",
       .lacking = {{"GPTQModel", "7.7 splits gate_up_proj, which vLLM and transformers keep whole"}},
       .qkv = "self_attn.qkv_proj",
       .gate_up = "mlp.gate_up_proj",
       .norm_eps = 1e-5,
       .partial_rotary = 1,
       .q_bias = kNo,
       .kv_bias = kNo,
       .o_bias = kNo,
       .mlp_bias = kNo,
       .window = "sliding_window"},
      stablelm(),
      stablelm_parallel(),
      {.model_types = {"starcoder2"},
       .models = "StarCoder2",
       .gate = "",
       .up = "mlp.c_fc",
       .down = "mlp.c_proj",
       .norm = NormKind::layer,
       .norm_bias = kYes,
       .norm_eps = 1e-5,
       .q_bias = {"use_bias", true},
       .kv_bias = {"use_bias", true},
       .o_bias = {"use_bias", true},
       .mlp_bias = {"use_bias", true},
       .tied = {"tie_word_embeddings", true},
       .activation = "gelu_pytorch_tanh",
       .window = "sliding_window"},
      cohere(),
      cohere2(),
      cohere_compass(),
      mllama(),
      modernbert_decoder(),
      {.model_types = {"olmo"},
       .models = "OLMo",
       .lacking = {{"GPTQModel", ""}},
       .norm = NormKind::layer,
       .norm_weight = NormWeight::none,
       .norm_eps = 1e-5,
       .mlp_bias = kNo,
       .also = {read_clip_qkv}},
      olmo2(),
      olmo3(),
      granite(),
      granite_swa(),
      hyperclovax(),
      jais2(),
      nanochat(),
      apertus(),
      {.model_types = {"emu3_text_model"},
       .models = "Emu3 Chat, Gen, inside emu3",
       .lacking = {{"GPTQModel", ""}},
       .norm_eps = 1e-5,
       .rope_theta = 1e6},
      glm(),
      glm4(),
      glm4v(),
      {.model_types = {"nemotron"},
       .models = "Nemotron-4, Minitron",
       .lacking = {{"GPTQModel", ""}},
       .gate = "",
       .norm = NormKind::layer,
       .norm_weight = NormWeight::plus_one,
       .norm_bias = kYes,
       .norm_eps = 1e-5,
       .partial_rotary = 0.5,
       .activation = "relu2"},
      exaone(),
      exaone4(),
      {.model_types = {"smollm3"},
       .models = "SmolLM3",
       .rope_theta = 2e6,
       .tied = {"tie_word_embeddings", true},
       .window = "sliding_window",
       .windowed = {"use_sliding_window"},
       .also = {read_unrotated_blocks}},
      {.model_types = {"helium"},
       .models = "Helium",
       .lacking = {{"GPTQModel", ""}, {"vLLM", ""}},
       .norm_eps = 1e-8,
       .rotary_order = RotaryOrder::interleaved,
       .rope_theta = 1e5,
       .o_bias = kNo},
      {.model_types = {"internlm2"},
       .models = "InternLM 2, 2.5",
       .lacking = {{"transformers", ""}},
       .embedding = "tok_embeddings",
       .head = "output",
       .attention_norm = "attention_norm",
       .mlp_norm = "ffn_norm",
       .o = "attention.wo",
       .qkv = "attention.wqkv",
       .gate = "feed_forward.w1",
       .up = "feed_forward.w3",
       .down = "feed_forward.w2",
       .fused_gate_up = "feed_forward.gate_up_proj",
       .qkv_order = QkvOrder::grouped,
       .q_bias = {"bias"},
       .kv_bias = {"bias"},
       .o_bias = {"bias"},
       .mlp_bias = kNo},
      {.model_types = {"internlm3"},
       .models = "InternLM 3",
       .lacking = {{"GPTQModel", ""}},
       .q_bias = {"qkv_bias"},
       .kv_bias = {"qkv_bias"},
       .o_bias = {"bias"},
       .mlp_bias = {"bias"}},
      baichuan(),
      {.model_types = {"minicpm"},
       .models = "MiniCPM 1B, 2B",
       .lacking = {{"transformers", ""}},
       .mlp_bias = kNo,
       .tied = {"tie_word_embeddings", true},
       .also = {read_depth_scales}},
      {.model_types = {"ernie4_5"},
       .models = "ERNIE 4.5 0.3B",
       .norm_eps = 1e-5,
       .rotary_order = RotaryOrder::interleaved,
       .rope_theta = 5e5,
       .q_bias = {"use_bias"},
       .kv_bias = {"use_bias"},
       .o_bias = {"use_bias"},
       .mlp_bias = {"use_bias"},
       .tied = {"tie_word_embeddings", true}},
      {.model_types = {"hunyuan_v1_dense"},
       .models = "Hunyuan 0.5B to 7B",
       .q_norm = "self_attn.query_layernorm",
       .k_norm = "self_attn.key_layernorm",
       .norm_eps = 1e-5,
       .qk_norm_after_rope = true,
       .mlp_bias = kNo,
       .also = {read_rope_alpha}},
      {.model_types = {"seed_oss"},
       .models = "Seed-OSS 36B",
       .q_bias = {"attention_bias", true},
       .kv_bias = {"attention_bias", true},
       .o_bias = {"attention_out_bias"}},
      {.model_types = {"arcee"},
       .models = "AFM 4.5B",
       .lacking = {{"GPTQModel", ""}},
       .gate = "",
       .norm_eps = 1e-5,
       .activation = "relu2"},
  };
  for (std::vector<Architecture> part :
       {gemma_architectures(), gpt_architectures(), expert_architectures(), latent_architectures(),
        hybrid_architectures(), state_space_architectures(), varied_architectures()})
    std::move(part.begin(), part.end(), std::back_inserter(table));
  Architecture rope = baichuan();
  rope.when = {};
  rope.models = "Baichuan 7B, Baichuan 2 7B";
  rope.positions = Positions::rope;
  table.push_back(rope);
  return table;
}

}  // namespace

Architecture qwen2_row() {
  return {.model_types = {"qwen2"},
          .models = "Qwen1.5, Qwen2, Qwen2.5, QwQ, DeepSeek-R1-Distill-Qwen",
          .q_bias = kYes,
          .kv_bias = kYes,
          .o_bias = kNo,
          .mlp_bias = kNo,
          .window = "sliding_window",
          .windowed = {"use_sliding_window"},
          .also = {read_first_window}};
}

Architecture qwen3_row() {
  Architecture row = qwen2_row();
  row.model_types = {"qwen3"};
  row.models = "Qwen3";
  row.q_norm = "self_attn.q_norm";
  row.k_norm = "self_attn.k_norm";
  row.q_bias = row.kv_bias = row.o_bias = {"attention_bias"};
  return row;
}

Architecture qwen3_vl_row() {
  Architecture row = qwen3_row();
  row.model_types = {"qwen3_vl_text"};
  row.models = "Qwen3-VL, inside qwen3_vl";
  row.rope_theta = 5e5;
  row.window = "";
  row.also = {};
  return row;
}

std::span<const Architecture> architectures() {
  static const std::vector<Architecture> table = make_table();
  return table;
}

}  // namespace gptq
