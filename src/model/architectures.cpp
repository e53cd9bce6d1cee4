// The table of model families: one row per family, with the names of its Hugging Face checkpoints. Defaults are
// Llama's.
#include "model/architectures.h"

#include "model/config_readers.h"

namespace gptq {
namespace {

// GPT-2; several families share parts of its names.
Architecture gpt2() {
  return {.model_types = {"gpt2", "gpt-sw3"},
          .models = "GPT-2, DistilGPT2, DialoGPT, GPT-SW3",
          .lacking = {{"transformers", "Optimum 2.3 does not put linears in the place of Conv1D"}},
          .root = "transformer",
          .embedding = "wte",
          .position_embedding = "wpe",
          .blocks = "h",
          .final_norm = "ln_f",
          .attention_norm = "ln_1",
          .mlp_norm = "ln_2",
          .o = "attn.c_proj",
          .qkv = "attn.c_attn",
          .gate = "",
          .up = "mlp.c_fc",
          .down = "mlp.c_proj",
          .norm = NormKind::layer,
          .norm_bias = kYes,
          .norm_eps = 1e-5,
          .positions = Positions::learned,
          .has_key_heads = false,
          .transposed = true,
          .q_bias = kYes,
          .kv_bias = kYes,
          .o_bias = kYes,
          .mlp_bias = kYes,
          .tied = {"tie_word_embeddings", true},
          .activation_key = "activation_function",
          .activation = "gelu_new",
          .also = {read_score_scales}};
}

Architecture gpt_bigcode() {
  Architecture row = gpt2();
  row.model_types = {"gpt_bigcode"};
  row.models = "StarCoder, SantaCoder";
  row.lacking = {};
  row.when = {{"multi_query", "true", "true"}};
  row.multi_query = kYes;
  row.qkv_order = QkvOrder::concatenated;
  row.transposed = false;
  row.activation = "gelu_pytorch_tanh";
  return row;
}

Architecture gpt_bigcode_multi_head() {
  Architecture row = gpt_bigcode();
  row.when = {{"multi_query", "false", "true"}};
  row.multi_query = kNo;
  row.qkv_order = QkvOrder::grouped;
  return row;
}

Architecture gpt_neo() {
  Architecture row = gpt2();
  row.model_types = {"gpt_neo"};
  row.models = "GPT-Neo, TinyStories";
  row.lacking = {{"vLLM", ""}};
  row.q = "attn.attention.q_proj";
  row.k = "attn.attention.k_proj";
  row.v = "attn.attention.v_proj";
  row.o = "attn.attention.out_proj";
  row.qkv = "";
  row.fused_qkv = "";
  row.transposed = false;
  row.scaled_scores = false;
  row.q_bias = row.kv_bias = kNo;
  row.also = {read_local_blocks};
  return row;
}

Architecture gptj() {
  Architecture row = gpt2();
  row.model_types = {"gptj"};
  row.models = "GPT-J";
  row.lacking = {};
  row.position_embedding = "";
  row.mlp_norm = "";
  row.q = "attn.q_proj";
  row.k = "attn.k_proj";
  row.v = "attn.v_proj";
  row.o = "attn.out_proj";
  row.qkv = "";
  row.fused_qkv = "attn.qkv_proj";
  row.up = "mlp.fc_in";
  row.down = "mlp.fc_out";
  row.parallel = kYes;
  row.positions = Positions::rope;
  row.rotary_order = RotaryOrder::interleaved;
  row.partial_rotary = 1;
  row.transposed = false;
  row.q_bias = row.kv_bias = row.o_bias = kNo;
  row.head_bias = kYes;
  row.tied = {"tie_word_embeddings"};
  row.also = {};
  return row;
}

Architecture codegen() {
  Architecture row = gptj();
  row.model_types = {"codegen"};
  row.models = "CodeGen";
  row.lacking = {{"vLLM", ""}};
  row.qkv = "attn.qkv_proj";
  row.qkv_order = QkvOrder::codegen;
  return row;
}

Architecture bloom() {
  return {.model_types = {"bloom"},
          .models = "BLOOM, BLOOMZ",
          .root = "transformer",
          .embedding = "word_embeddings",
          .embedding_norm = "word_embeddings_layernorm",
          .blocks = "h",
          .final_norm = "ln_f",
          .o = "self_attention.dense",
          .qkv = "self_attention.query_key_value",
          .gate = "",
          .up = "mlp.dense_h_to_4h",
          .down = "mlp.dense_4h_to_h",
          .norm = NormKind::layer,
          .norm_bias = kYes,
          .norm_eps = 1e-5,
          .positions = Positions::alibi,
          .qkv_order = QkvOrder::grouped,
          .has_key_heads = false,
          .q_bias = kYes,
          .kv_bias = kYes,
          .o_bias = kYes,
          .mlp_bias = kYes,
          .tied = {"tie_word_embeddings", true},
          .activation_key = "",
          .activation = "gelu_new",
          .also = {refuse_normed_residual}};
}

// Falcon before new_decoder_architecture, with one norm for both branches.
Architecture falcon() {
  Architecture row = bloom();
  row.model_types = {"falcon"};
  row.models = "Falcon 7B";
  row.lacking = {{"transformers", "Optimum 2.3 does not replace linears of a class of their own"}};
  row.when = {
      {"new_decoder_architecture", "false", "false"}, {"alibi", "false", "false"}, {"parallel_attn", "true", "true"}};
  row.embedding_norm = "";
  row.mlp_norm = "";
  row.parallel = kYes;
  row.multi_query = {"multi_query", true};
  row.positions = Positions::rope;
  row.q_bias = row.kv_bias = row.o_bias = row.mlp_bias = {"bias"};
  row.activation_key = "activation";
  row.activation = "gelu";
  row.also = {};
  return row;
}

Architecture falcon_sequential() {
  Architecture row = falcon();
  row.models = "Falcon with parallel_attn off";
  row.when = {
      {"new_decoder_architecture", "false", "false"}, {"alibi", "false", "false"}, {"parallel_attn", "false", "true"}};
  row.mlp_norm = "post_attention_layernorm";
  row.parallel = kNo;
  return row;
}

Architecture falcon_alibi() {
  Architecture row = falcon_sequential();
  row.models = "Falcon RW 1B, 7B";
  row.when = {
      {"new_decoder_architecture", "false", "false"}, {"alibi", "true", "false"}, {"parallel_attn", "false", "true"}};
  row.positions = Positions::alibi;
  row.also = {read_scaled_slopes};
  return row;
}

Architecture falcon_40b() {
  Architecture row = falcon();
  row.models = "Falcon 40B, 180B";
  row.when = {{"new_decoder_architecture", "true"}, {"num_ln_in_parallel_attn", "2", "2"}};
  row.attention_norm = "ln_attn";
  row.mlp_norm = "ln_mlp";
  row.has_key_heads = true;
  row.multi_query = kNo;
  return row;
}

Architecture falcon_11b() {
  Architecture row = falcon();
  row.models = "Falcon 2 11B";
  row.when = {{"new_decoder_architecture", "true"}, {"num_ln_in_parallel_attn", "1"}};
  row.has_key_heads = true;
  row.multi_query = kNo;
  return row;
}

Architecture gpt_neox() {
  Architecture row = bloom();
  row.model_types = {"gpt_neox"};
  row.models = "GPT-NeoX 20B, Pythia, Dolly 2, RedPajama INCITE";
  row.root = "gpt_neox";
  row.embedding = "embed_in";
  row.embedding_norm = "";
  row.blocks = "layers";
  row.final_norm = "final_layer_norm";
  row.head = "embed_out";
  row.o = "attention.dense";
  row.qkv = "attention.query_key_value";
  row.parallel = {"use_parallel_residual", true};
  row.positions = Positions::rope;
  row.partial_rotary = 0.25;
  row.q_bias = row.kv_bias = row.o_bias = {"attention_bias", true};
  row.tied = {"tie_word_embeddings"};
  row.activation_key = "hidden_act";
  row.activation = "gelu";
  row.also = {};
  return row;
}

Architecture mpt() {
  Architecture row = gpt2();
  row.model_types = {"mpt"};
  row.models = "MPT 7B, 30B";
  row.lacking = {{"transformers", "Optimum 2.3 does not find its blocks"}};
  row.position_embedding = "";
  row.blocks = "blocks";
  row.final_norm = "norm_f";
  row.attention_norm = "norm_1";
  row.mlp_norm = "norm_2";
  row.o = "attn.out_proj";
  row.qkv = "attn.Wqkv";
  row.up = "ffn.up_proj";
  row.down = "ffn.down_proj";
  row.norm_bias = kNo;
  row.positions = Positions::alibi;
  row.transposed = false;
  row.q_bias = row.kv_bias = row.o_bias = row.mlp_bias = kNo;
  row.activation_key = "";
  row.activation = "gelu";
  row.also = {read_mpt_attention};
  return row;
}

Architecture opt() {
  return {.model_types = {"opt"},
          .models = "OPT but for 350M, Galactica",
          .root = "model.decoder",
          .position_embedding = "embed_positions",
          .final_norm = "final_layer_norm",
          .attention_norm = "self_attn_layer_norm",
          .mlp_norm = "final_layer_norm",
          .o = "self_attn.out_proj",
          .gate = "",
          .up = "fc1",
          .down = "fc2",
          .norm = NormKind::layer,
          .norm_bias = kYes,
          .norm_eps = 1e-5,
          .positions = Positions::learned,
          .position_offset = 2,
          .has_key_heads = false,
          .q_bias = {"enable_bias", true},
          .kv_bias = {"enable_bias", true},
          .o_bias = {"enable_bias", true},
          .mlp_bias = {"enable_bias", true},
          .tied = {"tie_word_embeddings", true},
          .activation_key = "activation_function",
          .activation = "relu",
          .also = {read_opt}};
}

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
      gemma(),
      gemma2(),
      gemma3(),
      phi(),
      {.model_types = {"phi3"},
       .models = "Phi-3 mini, medium, Phi-3.5 mini, Phi-4, Phi-4 mini",
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
      gpt2(),
      gpt_neo(),
      gptj(),
      gpt_neox(),
      opt(),
      bloom(),
      falcon(),
      falcon_40b(),
      falcon_11b(),
      falcon_alibi(),
      falcon_sequential(),
      mpt(),
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
      gpt_bigcode(),
      gpt_bigcode_multi_head(),
      codegen(),
      cohere(),
      cohere2(),
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
      {.model_types = {"granite"}, .models = "Granite 3.0 to 3.3, Granite Code", .also = {read_multipliers}},
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
  for (Architecture& row : expert_architectures()) table.push_back(std::move(row));
  for (Architecture& row : hybrid_architectures()) table.push_back(std::move(row));
  for (Architecture& row : state_space_architectures()) table.push_back(std::move(row));
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
