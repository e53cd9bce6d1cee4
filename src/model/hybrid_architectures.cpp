// Rows of model families whose blocks do not all mix tokens by attention.
#include "model/architectures.h"
#include "model/config_readers.h"
#include "model/mixer_readers.h"

namespace gptq {
namespace {

Architecture lfm2() {
  return {.model_types = {"lfm2"},
          .models = "LFM2 350M to 2.6B, and inside LFM2-VL",
          .lacking = {{"GPTQModel", ""}},
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

Architecture lfm2_moe() {
  Architecture row = lfm2();
  row.model_types = {"lfm2_moe"};
  row.models = "LFM2 8B-A1B, 24B-A2B";
  row.lacking = {};
  row.experts = {.router = "feed_forward.gate",
                 .choice_bias = "feed_forward.expert_bias",
                 .gate = "feed_forward.experts.#.w1",
                 .up = "feed_forward.experts.#.w3",
                 .down = "feed_forward.experts.#.w2",
                 .kind = RouterKind::sigmoid,
                 .renormalized = {"norm_topk_prob", true},
                 .first_dense = 2};
  row.also = {read_short_convolutions, read_experts, read_expert_bias};
  return row;
}

}  // namespace

std::vector<Architecture> hybrid_architectures() { return {lfm2(), lfm2_moe()}; }

}  // namespace gptq
