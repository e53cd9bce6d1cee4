// Rows of model families whose blocks do not all mix tokens by attention.
#include "model/architectures.h"
#include "model/config_readers.h"
#include "model/mixer_readers.h"

namespace gptq {
namespace {

Architecture lfm2() {
  return {.model_types = {"lfm2"},
          .models = "LFM2 350M to 2.6B, and inside LFM2-VL",
          .final_norm = "embedding_norm",
          .attention_norm = "operator_norm",
          .mlp_norm = "ffn_norm",
          .o = "self_attn.out_proj",
          .q_norm = "self_attn.q_layernorm",
          .k_norm = "self_attn.k_layernorm",
          .gate = "feed_forward.w1",
          .up = "feed_forward.w3",
          .down = "feed_forward.w2",
          .convolution = {"conv.in_proj", "conv.conv", "conv.out_proj"},
          .fused_gate_up = "feed_forward.w13",
          .norm_eps = 1e-5,
          .rope_theta = 1e6,
          .q_bias = kNo,
          .kv_bias = kNo,
          .o_bias = kNo,
          .mlp_bias = kNo,
          .tied = {"tie_word_embeddings", true},
          .activation_key = "",
          .also = {read_short_convolutions, read_adjusted_width}};
}

// Windows in some of the blocks that attend, norms after each part, a gate for each head.
Architecture lfm3() {
  Architecture row = lfm2();
  row.model_types = {"lfm3"};
  row.models = "LFM3 1.7B, and inside LFM3-VL";
  row.lacking = {{"GPTQModel", ""}, {"vLLM", ""}};
  row.o = "self_attn.o_proj";
  row.q_norm = "self_attn.q_norm";
  row.k_norm = "self_attn.k_norm";
  row.attention_gate = "self_attn.gate_proj";
  row.attention_post_norm = "post_operator_norm";
  row.mlp_post_norm = "post_ffn_norm";
  row.post_normed = {"use_sandwich_norm", true};
  row.q_bias = row.kv_bias = row.o_bias = {"attention_bias"};
  row.also = {read_lfm3};
  return row;
}

Architecture lfm2_moe() {
  Architecture row = lfm2();
  row.model_types = {"lfm2_moe"};
  row.models = "LFM2 8B-A1B, 24B-A2B";
  row.lacking = {{"GPTQModel", "7.7 looks for self_attn.o_proj, which is self_attn.out_proj here"}};
  row.experts = {.router = "feed_forward.gate",
                 .choice_bias = "feed_forward.expert_bias",
                 .gate = "feed_forward.experts.#.w1",
                 .up = "feed_forward.experts.#.w3",
                 .down = "feed_forward.experts.#.w2",
                 .kind = RouterKind::sigmoid,
                 .renormalized = {"norm_topk_prob", true},
                 .sum_addend = 1e-6F,
                 .first_dense = 2};
  row.also = {read_short_convolutions, read_experts, read_expert_bias};
  return row;
}

// Three blocks of four have the gated delta rule instead of attention.
Architecture qwen3_next() {
  Architecture row = qwen3_row();
  row.model_types = {"qwen3_next"};
  row.models = "Qwen3-Next 80B-A3B, Qwen3-Coder-Next";
  row.norm_weight = NormWeight::plus_one;
  row.partial_rotary = 0.25;
  row.gated_heads = true;
  row.fused_qkv = "self_attn.qkv_proj";
  row.window = "";
  row.delta = {.qkvz = "linear_attn.in_proj_qkvz",
               .gates = {"linear_attn.in_proj_ba"},
               .convolutions = {"linear_attn.conv1d"},
               .decay_rate = "linear_attn.A_log",
               .decay_bias = "linear_attn.dt_bias",
               .norm = "linear_attn.norm",
               .out = "linear_attn.out_proj"};
  row.experts = {.router = "mlp.gate",
                 .gate = "mlp.experts.#.gate_proj",
                 .up = "mlp.experts.#.up_proj",
                 .down = "mlp.experts.#.down_proj",
                 .shared_gate = "mlp.shared_expert.gate_proj",
                 .shared_up = "mlp.shared_expert.up_proj",
                 .shared_down = "mlp.shared_expert.down_proj",
                 .shared_router = "mlp.shared_expert_gate",
                 .renormalized = {"norm_topk_prob", true}};
  row.also = {read_delta_rule, read_experts};
  return row;
}

// Queries, keys and values in one linear, their gates in others; inside qwen3_5 and qwen3_5_moe.
void split_projections(DeltaRow& row) {
  row.qkvz = "";
  row.qkv = {"linear_attn.in_proj_qkv"};
  row.z = "linear_attn.in_proj_z";
  row.fused_qkvz = "linear_attn.in_proj_qkvz";
  row.gates = {"linear_attn.in_proj_b", "linear_attn.in_proj_a"};
}

Architecture qwen3_5() {
  Architecture row = qwen3_next();
  row.model_types = {"qwen3_5_text"};
  row.models = "Qwen3.5 and Qwen3.6, dense, also inside qwen3_5";
  split_projections(row.delta);
  row.experts = {};
  row.also = {read_delta_rule};
  return row;
}

Architecture qwen3_5_moe() {
  Architecture row = qwen3_next();
  row.model_types = {"qwen3_5_moe_text"};
  row.models = "Qwen3.5 and Qwen3.6 with experts, also inside qwen3_5_moe";
  split_projections(row.delta);
  row.experts.renormalized = kYes;
  return row;
}

// Norms after attention, but before the delta rule and the MLP beside it.
Architecture olmo_hybrid() {
  return {.model_types = {"olmo_hybrid"},
          .models = "Olmo Hybrid 7B",
          .lacking = {{"GPTQModel", ""}},
          .attention_norm = "",
          .attention_post_norm = "post_attention_layernorm",
          .mlp_norm = "",
          .mlp_post_norm = "post_feedforward_layernorm",
          .norms_without_attention = BlockNorms{.mixer = "input_layernorm", .mlp = "post_attention_layernorm"},
          .q_norm = "self_attn.q_norm",
          .k_norm = "self_attn.k_norm",
          .delta = {.z = "linear_attn.g_proj",
                    .qkv = {"linear_attn.q_proj", "linear_attn.k_proj", "linear_attn.v_proj"},
                    .gates = {"linear_attn.b_proj", "linear_attn.a_proj"},
                    .convolutions = {"linear_attn.q_conv1d", "linear_attn.k_conv1d", "linear_attn.v_conv1d"},
                    .decay_rate = "linear_attn.A_log",
                    .decay_bias = "linear_attn.dt_bias",
                    .norm = "linear_attn.o_norm",
                    .out = "linear_attn.o_proj",
                    .norm_eps = 1e-5,
                    .fused_qkvz = "linear_attn.in_proj_qkvg"},
          .qk_norm = QkNorm::whole,
          .mlp_bias = kNo,
          .also = {read_olmo_hybrid}};
}

}  // namespace

std::vector<Architecture> hybrid_architectures() {
  return {lfm2(), lfm2_moe(), lfm3(), qwen3_next(), qwen3_5(), qwen3_5_moe(), olmo_hybrid()};
}

}  // namespace gptq
