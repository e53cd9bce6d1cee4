// Rows of the families before Llama: layer norms, MLPs without a gate, learned positions or ALiBi.
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

// Also the language model of Fuyu.
Architecture persimmon() {
  Architecture row = gpt_neox();
  row.model_types = {"persimmon"};
  row.models = "Persimmon 8B, also inside fuyu";
  row.lacking = {{"GPTQModel", ""}, {"vLLM", ""}};
  row.root = "model";
  row.embedding = "embed_tokens";
  row.final_norm = "final_layernorm";
  row.head = "lm_head";
  row.o = "self_attn.dense";
  row.qkv = "self_attn.query_key_value";
  row.q_norm = "self_attn.q_layernorm";
  row.k_norm = "self_attn.k_layernorm";
  row.qk_normed = {"qk_layernorm", true};
  row.parallel = kNo;
  row.partial_rotary = 0.5;
  row.q_bias = row.kv_bias = row.o_bias = kYes;
  row.activation = "relu2";
  return row;
}

Architecture biogpt() {
  Architecture row = opt();
  row.model_types = {"biogpt"};
  row.models = "BioGPT, BioGPT-Large";
  row.lacking = {{"GPTQModel", ""}, {"vLLM", ""}};
  row.root = "biogpt";
  row.head = "output_projection";
  row.final_norm = "layer_norm";
  row.norm_eps = 1e-5;
  row.q_bias = row.kv_bias = row.o_bias = row.mlp_bias = kYes;
  row.activation_key = "hidden_act";
  row.activation = "gelu";
  row.also = {read_switched_embedding_scale};
  return row;
}

Architecture xglm() {
  Architecture row = biogpt();
  row.model_types = {"xglm"};
  row.models = "XGLM 564M to 7.5B";
  row.root = "model";
  row.head = "lm_head";
  row.position_embedding = "";
  row.positions = Positions::sinusoidal;
  row.activation_key = "activation_function";
  return row;
}

Architecture gpt_neox_japanese() {
  Architecture row = gpt_neox();
  row.model_types = {"gpt_neox_japanese"};
  row.models = "GPT-NeoX Japanese 2.7B";
  row.lacking = {{"GPTQModel", ""}, {"vLLM", ""}};
  row.root = "gpt_neox_japanese";
  row.last_o_bias = "attention.dense_bias";
  row.parallel = kNo;
  row.partial_rotary = 1;
  row.q_bias = row.kv_bias = row.o_bias = row.mlp_bias = kNo;
  row.tied = {"tie_word_embeddings", true};
  row.also = {read_multiple_size};
  return row;
}

}  // namespace

std::vector<Architecture> gpt_architectures() {
  return {gpt2(),
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
          gpt_bigcode(),
          gpt_bigcode_multi_head(),
          codegen(),
          persimmon(),
          biogpt(),
          xglm(),
          gpt_neox_japanese()};
}

}  // namespace gptq
