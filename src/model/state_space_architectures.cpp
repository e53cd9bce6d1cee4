// Rows of model families with state spaces: Mamba, Mamba-2, and hybrids of them with attention.
#include "model/architectures.h"
#include "model/config_readers.h"
#include "model/state_space_readers.h"

namespace gptq {
namespace {

Architecture bamba() {
  return {.model_types = {"bamba"},
          .models = "Bamba 9B",
          .lacking = {{"GPTQModel", ""}},
          .final_norm = "final_layernorm",
          .mlp_norm = "pre_ff_layernorm",
          .gate = "feed_forward.gate_proj",
          .up = "feed_forward.up_proj",
          .down = "feed_forward.down_proj",
          .state_space = {.module = "mamba"},
          .fused_gate_up = "feed_forward.gate_up_proj",
          .norm_eps = 1e-5,
          .partial_rotary = 0.5,
          .also = {read_hybrid_state_space, read_attending_blocks}};
}

Architecture falcon_h1() {
  Architecture row = bamba();
  row.model_types = {"falcon_h1"};
  row.models = "Falcon-H1 0.5B to 34B";
  row.lacking = {};
  row.partial_rotary = 0;
  row.also = {read_falcon_h1};
  return row;
}

// Granite 4 without experts: its one MLP is named like the shared one.
Architecture granite_hybrid() {
  return {.model_types = {"granitemoehybrid"},
          .models = "Granite 4.0-H Micro, 350M, 1B",
          .when = {{"num_local_experts", "0", "8"}},
          .down = "shared_mlp.output_linear",
          .gate_up = "shared_mlp.input_linear",
          .state_space = {.module = "mamba"},
          .fused_gate_up = "",
          .mlp_bias = kNo,
          .also = {read_multipliers, read_hybrid_state_space, read_granite_hybrid}};
}

Architecture granite_hybrid_with_experts() {
  Architecture row = granite_hybrid();
  row.models = "Granite 4.0-H Tiny, Small";
  row.when = {};
  row.experts = {.router = "block_sparse_moe.router.layer",
                 .down = "block_sparse_moe.output_linear.#.linear",
                 .gate_up = "block_sparse_moe.input_linear.#.linear",
                 .tensors = ExpertTensors::halves,
                 .stored_gate_up = "block_sparse_moe.input_linear.weight",
                 .stored_down = "block_sparse_moe.output_linear.weight",
                 .shared_down = "shared_mlp.output_linear",
                 .shared_gate_up = "shared_mlp.input_linear",
                 .renormalized = kYes};
  row.also = {read_multipliers, read_hybrid_state_space, read_granite_hybrid, read_experts};
  return row;
}

Architecture nemotron_h() {
  return {.model_types = {"nemotron_h"},
          .models = "Nemotron-H, Nemotron Nano 2, Nemotron 3 Nano",
          .lacking = {{"GPTQModel", "7.7 lists no experts for it"}},
          .root = "backbone",
          .embedding = "embeddings",
          .final_norm = "norm_f",
          .attention_norm = "norm",
          .mlp_norm = "norm",
          .q = "mixer.q_proj",
          .k = "mixer.k_proj",
          .v = "mixer.v_proj",
          .o = "mixer.o_proj",
          .gate = "",
          .up = "mixer.up_proj",
          .down = "mixer.down_proj",
          .state_space = {.module = "mixer"},
          .experts = {.router = "mixer.gate",
                      .choice_bias = "mixer.gate.e_score_correction_bias",
                      .up = "mixer.experts.#.up_proj",
                      .down = "mixer.experts.#.down_proj",
                      .shared_up = "mixer.shared_experts.up_proj",
                      .shared_down = "mixer.shared_experts.down_proj",
                      .kind = RouterKind::sigmoid,
                      .two_of_group = true,
                      .renormalized = {"norm_topk_prob", true}},
          .fused_qkv = "mixer.qkv_proj",
          .fused_gate_up = "",
          .missing = {.head_dim = 128, .blocks = 1},
          .norm_eps = 1e-5,
          .q_bias = kNo,
          .kv_bias = kNo,
          .o_bias = kNo,
          .activation_key = "mlp_hidden_act",
          .activation = "relu2",
          .also = {read_nemotron_h}};
}

Architecture jamba() {
  Architecture row = bamba();
  row.model_types = {"jamba"};
  row.models = "Jamba 1.5 Mini, Large, Jamba 1.6, Jamba Reasoning 3B";
  row.lacking = {{"GPTQModel", "7.7 lists no experts for it"}};
  row.state_space = {.module = "mamba", .scans = true, .selection_norms = SelectionNorms::stored};
  row.experts = {.router = "feed_forward.router",
                 .gate = "feed_forward.experts.#.gate_proj",
                 .up = "feed_forward.experts.#.up_proj",
                 .down = "feed_forward.experts.#.down_proj",
                 .renormalized = kNo};
  row.norm_eps = 1e-6;
  row.partial_rotary = 0;
  row.q_bias = row.kv_bias = row.o_bias = row.mlp_bias = kNo;
  row.also = {read_jamba};
  return row;
}

// Every block is one mixer.
Architecture mamba2() {
  return {.model_types = {"mamba2"},
          .models = "Mamba-2, Mamba-Codestral 7B",
          .lacking = {{"GPTQModel", ""}},
          .root = "backbone",
          .embedding = "embeddings",
          .final_norm = "norm_f",
          .attention_norm = "norm",
          .mlp_norm = "",
          .gate = "",
          .state_space = {.module = "mixer"},
          .missing = {.heads = 1, .head_dim = 2},
          .norm_eps = 1e-5,
          .q_bias = kNo,
          .kv_bias = kNo,
          .o_bias = kNo,
          .mlp_bias = kNo,
          .also = {read_mamba2}};
}

Architecture mamba() {
  Architecture row = mamba2();
  row.model_types = {"mamba"};
  row.models = "Mamba 130M to 2.8B";
  row.state_space.scans = true;
  row.tied = {"tie_word_embeddings", true};
  row.also = {read_mamba};
  return row;
}

Architecture falcon_mamba() {
  Architecture row = mamba();
  row.model_types = {"falcon_mamba"};
  row.models = "Falcon-Mamba 7B";
  row.lacking = {{"GPTQModel", "7.7 quantizes x_proj too, which is kept here"}};
  row.state_space.selection_norms = SelectionNorms::unweighted;
  return row;
}

}  // namespace

std::vector<Architecture> state_space_architectures() {
  return {bamba(),  falcon_h1(), granite_hybrid(), granite_hybrid_with_experts(), nemotron_h(), jamba(),
          mamba2(), mamba(),     falcon_mamba()};
}

}  // namespace gptq
