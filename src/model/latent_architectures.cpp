// Rows of the families with multi-head latent attention, with and without experts.
#include "model/architectures.h"
#include "model/config_readers.h"

namespace gptq {
namespace {

Architecture deepseek_v2() {
  Architecture row = {.model_types = {"deepseek_v2"},
                      .models = "DeepSeek-V2, V2.5, V2-Lite, Coder-V2",
                      .latent = {.q_a = "self_attn.q_a_proj",
                                 .q_a_norm = "self_attn.q_a_layernorm",
                                 .q_b = "self_attn.q_b_proj",
                                 .kv_a = "self_attn.kv_a_proj_with_mqa",
                                 .kv_a_norm = "self_attn.kv_a_layernorm",
                                 .kv_b = "self_attn.kv_b_proj"},
                      .experts = split_experts(),
                      .rotary_order = RotaryOrder::interleaved,
                      .mlp_bias = kNo,
                      .also = {read_latent, read_experts}};
  add_shared_expert(row.experts, "mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj",
                    "mlp.shared_experts.down_proj");
  row.experts.renormalized = kNo;
  return row;
}

}  // namespace

Architecture deepseek_v3_row() {
  Architecture row = deepseek_v2();
  row.model_types = {"deepseek_v3", "kimi_k2", "sarvam_mla"};
  row.models = "DeepSeek-V3, V3.1, R1, Kimi K2, Moonlight, Sarvam 105B";
  row.experts.choice_bias = "mlp.gate.e_score_correction_bias";
  row.experts.kind = RouterKind::sigmoid;
  row.experts.two_of_group = true;
  row.experts.renormalized = {"norm_topk_prob", true};
  return row;
}

namespace {

Architecture glm4_moe_lite() {
  Architecture row = deepseek_v3_row();
  row.model_types = {"glm4_moe_lite"};
  row.models = "GLM-4.7-Flash";
  row.lacking = {{"GPTQModel", ""}};
  row.norm_eps = 1e-5;
  row.experts.first_dense = 1;
  return row;
}

Architecture youtu() {
  Architecture row = deepseek_v3_row();
  row.model_types = {"youtu"};
  row.models = "Youtu-LLM 2B";
  row.lacking = {{"GPTQModel", ""}, {"vLLM", ""}};
  row.experts = {};
  row.tied = {"tie_word_embeddings", true};
  row.also = {read_latent};
  return row;
}

Architecture minicpm3() {
  Architecture row = youtu();
  row.model_types = {"minicpm3"};
  row.models = "MiniCPM3 4B";
  row.lacking = {};
  row.norm_eps = 1e-5;
  row.rotary_order = RotaryOrder::halves;
  row.mlp_bias = {"mlp_bias"};
  row.also = {read_latent, read_depth_scales};
  return row;
}

// A norm of what the experts add.
Architecture axk1() {
  Architecture row = deepseek_v3_row();
  row.model_types = {"axk1"};
  row.models = "A.X K1 519B-A33B";
  row.lacking = {{"GPTQModel", ""}};
  row.experts.post_norm = "post_mlp_layernorm";
  row.experts.first_dense = 1;
  return row;
}

// Attention that chooses index_topk tokens; up to so many it attends to all.
Architecture deepseek_v32() {
  Architecture row = deepseek_v3_row();
  row.model_types = {"deepseek_v32"};
  row.models = "DeepSeek-V3.2, in sequences of up to 2048 tokens";
  row.experts.first_dense = 3;
  row.also.push_back(read_indexed_attention);
  return row;
}

Architecture glm_moe_dsa() {
  Architecture row = deepseek_v32();
  row.model_types = {"glm_moe_dsa"};
  row.models = "GLM-5, in sequences of up to 2048 tokens";
  row.norm_eps = 1e-5;
  return row;
}

// A softmax chooses its experts; queries grow with their position.
Architecture mistral4() {
  Architecture row = deepseek_v3_row();
  row.model_types = {"mistral4"};
  row.models = "Mistral Small 4, inside mistral3";
  row.lacking = {{"GPTQModel", ""}};
  row.experts.choice_bias = "";
  row.experts.kind = RouterKind::softmax;
  row.also.push_back(read_query_scaling);
  return row;
}

}  // namespace

std::vector<Architecture> latent_architectures() {
  return {deepseek_v2(), deepseek_v3_row(), glm4_moe_lite(), youtu(),   minicpm3(),
          axk1(),        deepseek_v32(),    glm_moe_dsa(),   mistral4()};
}

}  // namespace gptq
