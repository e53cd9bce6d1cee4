// Rows of model families with experts; latent_architectures.cpp has those with latent attention.
#include "model/architectures.h"
#include "model/config_readers.h"

namespace gptq {

// Experts named mlp.experts.#, as in most families.
ExpertRow split_experts() {
  return {.router = "mlp.gate",
          .gate = "mlp.experts.#.gate_proj",
          .up = "mlp.experts.#.up_proj",
          .down = "mlp.experts.#.down_proj"};
}

void add_shared_expert(ExpertRow& experts, std::string_view gate, std::string_view up, std::string_view down) {
  experts.shared_gate = gate;
  experts.shared_up = up;
  experts.shared_down = down;
}

namespace {

// Mixtral's names, which families of its kind share.
Architecture mixtral() {
  return {.model_types = {"mixtral"},
          .models = "Mixtral 8x7B, 8x22B",
          .lacking = {{"GPTQModel",
                       "7.7 looks for experts under the names of transformers 5, vLLM under those of the release"}},
          .experts = {.router = "block_sparse_moe.gate",
                      .gate = "block_sparse_moe.experts.#.w1",
                      .up = "block_sparse_moe.experts.#.w3",
                      .down = "block_sparse_moe.experts.#.w2",
                      .renormalized = kYes},
          .norm_eps = 1e-5,
          .rope_theta = 1e6,
          .q_bias = kNo,
          .kv_bias = kNo,
          .o_bias = kNo,
          .mlp_bias = kNo,
          .window = "sliding_window",
          .also = {read_experts}};
}

Architecture phimoe() {
  Architecture row = mixtral();
  row.model_types = {"phimoe"};
  row.models = "Phi-3.5-MoE";
  row.experts.kind = RouterKind::sparse_mixer;
  row.norm = NormKind::layer;
  row.norm_bias = kYes;
  row.q_bias = row.kv_bias = row.o_bias = {"attention_bias"};
  row.head_bias = {"lm_head_bias"};
  row.partial_rotary = 1;
  row.also = {read_experts, read_mscales};
  return row;
}

Architecture granitemoe() {
  Architecture row = mixtral();
  row.model_types = {"granitemoe"};
  row.models = "Granite 3 1B-A400M, 3B-A800M";
  row.lacking = {{"GPTQModel", "7.7 loads its experts as NaN"}};
  row.experts = {.router = "block_sparse_moe.router.layer",
                 .down = "block_sparse_moe.output_linear.#.linear",
                 .gate_up = "block_sparse_moe.input_linear.#.linear",
                 .tensors = ExpertTensors::halves,
                 .stored_gate_up = "block_sparse_moe.input_linear.weight",
                 .stored_down = "block_sparse_moe.output_linear.weight",
                 .renormalized = kYes};
  row.norm_eps = 1e-6;
  row.rope_theta = 10000;
  row.q_bias = row.kv_bias = row.o_bias = {"attention_bias"};
  row.window = "";
  row.also = {read_multipliers, read_experts};
  return row;
}

Architecture granitemoeshared() {
  Architecture row = granitemoe();
  row.model_types = {"granitemoeshared"};
  row.models = "Granite MoE with a shared expert";
  row.lacking = {{"GPTQModel", ""}};
  row.experts.shared_gate_up = "shared_mlp.input_linear";
  row.experts.shared_down = "shared_mlp.output_linear";
  return row;
}

Architecture qwen2_moe() {
  Architecture row = qwen2_row();
  row.model_types = {"qwen2_moe"};
  row.models = "Qwen1.5-MoE, Qwen2 57B-A14B";
  row.experts = split_experts();
  add_shared_expert(row.experts, "mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj",
                    "mlp.shared_expert.down_proj");
  row.experts.shared_router = "mlp.shared_expert_gate";
  row.q_bias = row.kv_bias = {"qkv_bias", true};
  row.also = {read_first_window, read_experts};
  return row;
}

Architecture qwen3_moe() {
  Architecture row = qwen3_row();
  row.model_types = {"qwen3_moe"};
  row.models = "Qwen3 30B-A3B, 235B-A22B, Qwen3-Coder";
  row.experts = split_experts();
  row.also = {read_first_window, read_experts};
  return row;
}

// Blocks with a window and blocks without have a rope each.
Architecture mellum() {
  Architecture row = qwen3_moe();
  row.model_types = {"mellum"};
  row.models = "Mellum 2";
  row.lacking = {{"GPTQModel", ""}};
  row.rope_theta = 5e5;
  row.windowed = kYes;
  row.also = {read_experts, read_typed_ropes};
  return row;
}

Architecture qwen3_vl_moe() {
  Architecture row = qwen3_vl_row();
  row.model_types = {"qwen3_vl_moe_text"};
  row.models = "Qwen3-VL 30B-A3B, 235B-A22B, inside qwen3_vl_moe";
  row.experts = split_experts();
  row.experts.tensors = ExpertTensors::turned_halves;
  row.experts.stored_gate_up = "mlp.experts.gate_up_proj";
  row.experts.stored_down = "mlp.experts.down_proj";
  row.experts.renormalized = kYes;
  row.also = {read_experts};
  return row;
}

Architecture olmoe() {
  return {.model_types = {"olmoe"},
          .models = "OLMoE",
          .q_norm = "self_attn.q_norm",
          .k_norm = "self_attn.k_norm",
          .experts = split_experts(),
          .norm_eps = 1e-5,
          .qk_norm = QkNorm::whole,
          .mlp_bias = kNo,
          .also = {read_clip_qkv, read_experts}};
}

Architecture glm4_moe() {
  Architecture row = {.model_types = {"glm4_moe"},
                      .models = "GLM-4.5, 4.5-Air, 4.6",
                      .lacking = {{"GPTQModel", "7.7 fails in its own router"}},
                      .q_norm = "self_attn.q_norm",
                      .k_norm = "self_attn.k_norm",
                      .experts = deepseek_v3_row().experts,
                      .norm_eps = 1e-5,
                      .qk_normed = {"use_qk_norm"},
                      .partial_rotary = 0.5,
                      .o_bias = kNo,
                      .mlp_bias = kNo,
                      .also = {read_experts}};
  return row;
}

Architecture glm4v_moe() {
  Architecture row = glm4_moe();
  row.model_types = {"glm4v_moe_text"};
  row.models = "GLM-4.5V, GLM-4.6V, inside glm4v_moe and glm46v";
  row.q_norm = row.k_norm = "";
  row.qk_normed = kNo;
  row.q_bias = row.kv_bias = {"attention_bias", true};
  row.experts.first_dense = 1;
  return row;
}

Architecture minimax_m2() {
  Architecture row = mixtral();
  row.model_types = {"minimax_m2"};
  row.models = "MiniMax M2, M2.1, M2.5, M2.7";
  row.q_norm = "self_attn.q_norm";
  row.k_norm = "self_attn.k_norm";
  row.experts.choice_bias = "block_sparse_moe.e_score_correction_bias";
  row.experts.kind = RouterKind::sigmoid;
  row.norm_eps = 1e-6;
  row.qk_norm = QkNorm::whole;
  row.partial_rotary = 1;
  row.rope_theta = 5e6;
  row.window = "";
  return row;
}

Architecture hunyuan_v1_moe() {
  Architecture row = {.model_types = {"hunyuan_v1_moe"},
                      .models = "Hunyuan A13B",
                      .q_norm = "self_attn.query_layernorm",
                      .k_norm = "self_attn.key_layernorm",
                      .experts = split_experts(),
                      .norm_eps = 1e-5,
                      .qk_norm_after_rope = true,
                      .mlp_bias = kNo,
                      .also = {read_rope_alpha, read_experts, read_one_shared_expert}};
  row.experts.router = "mlp.gate.wg";
  row.experts.renormalized = kYes;
  add_shared_expert(row.experts, "mlp.shared_mlp.gate_proj", "mlp.shared_mlp.up_proj", "mlp.shared_mlp.down_proj");
  return row;
}

Architecture dots1() {
  Architecture row = qwen3_row();
  row.model_types = {"dots1"};
  row.models = "dots.llm1";
  row.experts = deepseek_v3_row().experts;
  row.also = {read_first_window, read_experts};
  return row;
}

Architecture ernie4_5_moe() {
  Architecture row = {.model_types = {"ernie4_5_moe"},
                      .models = "ERNIE 4.5 21B-A3B, 300B-A47B",
                      .experts = split_experts(),
                      .norm_eps = 1e-5,
                      .rotary_order = RotaryOrder::interleaved,
                      .rope_theta = 5e5,
                      .q_bias = {"use_bias"},
                      .kv_bias = {"use_bias"},
                      .o_bias = {"use_bias"},
                      .mlp_bias = {"use_bias"},
                      .tied = {"tie_word_embeddings", true},
                      .also = {read_experts}};
  add_shared_expert(row.experts, "mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj",
                    "mlp.shared_experts.down_proj");
  row.experts.choice_bias = "mlp.moe_statics.e_score_correction_bias";
  row.experts.renormalized = kYes;
  return row;
}

// Tokens of images have a router and experts of their own, which stay as they are.
Architecture ernie4_5_vl_moe() {
  Architecture row = ernie4_5_moe();
  row.model_types = {"ernie4_5_vl_moe_text", "ernie4_5_moe_vl"};
  row.models = "ERNIE 4.5 VL 28B-A3B, 424B-A47B, inside ernie4_5_vl_moe, as text";
  row.lacking = {{"GPTQModel", "7.7 takes the experts for images to be quantized too"}, {"vLLM", "it does so too"}};
  row.experts.turned_router = true;
  row.experts.choice_biases = 2;
  row.experts.first_dense = 1;
  row.also = {read_text_experts};
  return row;
}

Architecture gpt_oss() {
  Architecture row = {.model_types = {"gpt_oss"},
                      .models = "gpt-oss 20B, 120B in bf16",
                      .sinks = "self_attn.sinks",
                      .experts = split_experts(),
                      .norm_eps = 1e-5,
                      .rope_theta = 150000,
                      .q_bias = {"attention_bias", true},
                      .kv_bias = {"attention_bias", true},
                      .o_bias = {"attention_bias", true},
                      .window = "sliding_window",
                      .full_every = 2,
                      .also = {read_experts, read_clamped_swiglu}};
  row.experts.router = "mlp.router";
  row.experts.router_bias = kYes;
  row.experts.bias = kYes;
  row.experts.renormalized = kYes;
  row.experts.tensors = ExpertTensors::turned_pairs;
  row.experts.stored_gate_up = "mlp.experts.gate_up_proj";
  row.experts.stored_down = "mlp.experts.down_proj";
  row.experts.stored_gate_up_bias = "mlp.experts.gate_up_proj_bias";
  row.experts.stored_down_bias = "mlp.experts.down_proj_bias";
  return row;
}

Architecture llama4() {
  Architecture row = {.model_types = {"llama4_text"},
                      .models = "Llama 4 Scout, Maverick, also inside llama4",
                      .gate = "feed_forward.gate_proj",
                      .up = "feed_forward.up_proj",
                      .down = "feed_forward.down_proj",
                      .fused_gate_up = "feed_forward.gate_up_proj",
                      .norm_eps = 1e-5,
                      .qk_norm = QkNorm::unweighted,
                      .qk_normed = {"use_qk_norm", true},
                      .qk_norm_after_rope = true,
                      .rotary_order = RotaryOrder::interleaved,
                      .rope_theta = 500000,
                      .mlp_bias = kNo,
                      .also = {read_experts, read_llama4}};
  row.experts = {.router = "feed_forward.router",
                 .gate = "feed_forward.experts.#.gate_proj",
                 .up = "feed_forward.experts.#.up_proj",
                 .down = "feed_forward.experts.#.down_proj",
                 .tensors = ExpertTensors::turned_halves,
                 .stored_gate_up = "feed_forward.experts.gate_up_proj",
                 .stored_down = "feed_forward.experts.down_proj",
                 .kind = RouterKind::sigmoid,
                 .renormalized = kNo,
                 .weighs_inputs = true};
  add_shared_expert(row.experts, "feed_forward.shared_expert.gate_proj", "feed_forward.shared_expert.up_proj",
                    "feed_forward.shared_expert.down_proj");
  return row;
}

Architecture granitemoe_swa() {
  Architecture row = granitemoeshared();
  row.model_types = {"granitemoe_swa"};
  row.models = "Granite Swash 3B-A600M";
  row.sinks = "self_attn.sinks";
  row.window = "sliding_window";
  row.also = {read_multipliers, read_experts, read_first_of_four, read_block_thetas};
  return row;
}

Architecture solar_open() {
  Architecture row = glm4_moe();
  row.model_types = {"solar_open"};
  row.models = "Solar Open 100B";
  row.lacking = {{"vLLM", ""}};
  row.q_norm = row.k_norm = "";
  row.qk_normed = kNo;
  row.partial_rotary = 1;
  row.rope_theta = 1e6;
  return row;
}

Architecture sarvam_moe() {
  Architecture row = glm4_moe();
  row.model_types = {"sarvam_moe"};
  row.models = "Sarvam 30B";
  row.lacking = {{"GPTQModel", ""}};
  row.root = "model";
  row.embedding = "word_embeddings";
  row.o = "attention.dense";
  row.qkv = "attention.query_key_value";
  row.q_norm = "attention.query_layernorm";
  row.k_norm = "attention.key_layernorm";
  row.norm_eps = 1e-6;
  row.qk_normed = {"use_qk_norm", true};
  row.partial_rotary = 1;
  row.rope_theta = 8e6;
  row.experts.choice_bias = "mlp.gate.expert_bias";
  row.experts.first_dense = 1;
  return row;
}

// Exaone 4's attention, with the norms before it.
Architecture exaone_moe() {
  Architecture row = qwen3_row();
  row.model_types = {"exaone_moe"};
  row.models = "K-EXAONE 236B-A23B";
  row.lacking = {{"GPTQModel", ""}};
  row.experts = deepseek_v3_row().experts;
  row.experts.choice_bias = "mlp.e_score_correction_bias";
  row.experts.first_dense = 1;
  row.norm_eps = 1e-5;
  row.q_bias = row.kv_bias = kNo;
  row.full_every = 4;
  row.windowed = kYes;
  row.full_is_unrotated = true;
  row.also = {read_experts};
  return row;
}

// Routers that rate experts by logits, to which they add the bias.
Architecture kolibri1() {
  Architecture row = exaone_moe();
  row.model_types = {"kolibri1"};
  row.models = "Kolibri 1";
  row.lacking = {{"GPTQModel", ""}, {"vLLM", ""}};
  row.experts.choice_bias = "moe.router.expert_bias";
  row.experts.biases_logits = true;
  row.experts.first_dense = 0;
  row.experts.renormalized = {"norm_topk_prob"};
  row.attention_post_norm = "post_attn_norm";
  row.mlp_post_norm = "post_ffn_norm";
  row.norm_eps = 1e-6;
  row.full_every = 5;
  row.full_every_key = "";
  return row;
}

Architecture flex_olmo() {
  Architecture row = olmoe();
  row.model_types = {"flex_olmo"};
  row.models = "FlexOlmo 7x7B";
  row.lacking = {{"GPTQModel", ""}};
  row.attention_norm = row.mlp_norm = "";
  row.attention_post_norm = "post_attention_layernorm";
  row.mlp_post_norm = "post_feedforward_layernorm";
  row.norm_eps = 1e-6;
  row.rope_theta = 5e5;
  row.also = {read_experts};
  return row;
}

// The attention's output is multiplied by the sigmoid of a linear of its input.
Architecture afmoe() {
  Architecture row = qwen3_row();
  row.model_types = {"afmoe"};
  row.models = "Trinity Nano, Mini, Large";
  row.lacking = {};
  row.attention_post_norm = "post_attention_layernorm";
  row.mlp_norm = "pre_mlp_layernorm";
  row.mlp_post_norm = "post_mlp_layernorm";
  row.attention_gate = "self_attn.gate_proj";
  row.experts = deepseek_v3_row().experts;
  row.experts.router = "mlp.router.gate";
  row.experts.choice_bias = "mlp.expert_bias";
  row.experts.first_dense = 1;
  row.experts.renormalized = kYes;
  row.norm_eps = 1e-5;
  row.windowed = kYes;
  row.full_every_key = "global_attn_every_n_layers";
  row.full_every = 4;
  row.full_is_unrotated = true;
  row.also = {read_experts, read_mup_embedding_scale};
  return row;
}

// Sizes and ropes differ between blocks with a window and without; the gate is a softplus.
Architecture laguna() {
  Architecture row = qwen3_row();
  row.model_types = {"laguna"};
  row.models = "Laguna XS, M";
  row.lacking = {};
  row.attention_gate = "self_attn.g_proj";
  row.attention_gate_activation = Activation::softplus;
  row.experts = deepseek_v3_row().experts;
  row.experts.choice_bias = "mlp.experts.e_score_correction_bias";
  row.experts.first_dense = 1;
  row.experts.renormalized = kYes;
  add_shared_expert(row.experts, "mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj",
                    "mlp.shared_expert.down_proj");
  row.partial_rotary = 1;
  row.rope_theta = 5e5;
  row.windowed = kYes;
  row.also = {read_experts, read_typed_ropes, read_laguna_attention};
  return row;
}

Architecture hy_v3() {
  Architecture row = qwen3_row();
  row.model_types = {"hy_v3"};
  row.models = "Hunyuan 3";
  row.lacking = {};
  row.experts = deepseek_v3_row().experts;
  row.experts.router = "mlp.router.gate";
  row.experts.choice_bias = "mlp.expert_bias";
  row.experts.renormalized = kYes;
  row.experts.first_dense = 1;
  add_shared_expert(row.experts, "mlp.shared_mlp.gate_proj", "mlp.shared_mlp.up_proj", "mlp.shared_mlp.down_proj");
  row.norm_eps = 1e-5;
  row.rope_theta = 11158840;
  row.mlp_bias = {"mlp_bias"};
  row.window = "";
  row.also = {read_experts};
  return row;
}

// Sinks, and rope only in blocks with a window; the shared expert is not gated.
Architecture flint() {
  Architecture row = qwen3_row();
  row.model_types = {"flint"};
  row.models = "Flint";
  row.lacking = {{"GPTQModel", ""}, {"vLLM", ""}};
  row.sinks = "self_attn.softmax_offset";
  row.experts = split_experts();
  row.experts.kind = RouterKind::sigmoid;
  row.experts.renormalized = {"norm_topk_prob", true};
  add_shared_expert(row.experts, "mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj",
                    "mlp.shared_expert.down_proj");
  row.windowed = kYes;
  row.full_is_unrotated = true;
  row.also = {read_experts, read_flint_blocks};
  return row;
}

Architecture cohere2_moe() {
  return {.model_types = {"cohere2_moe"},
          .models = "Command A with experts",
          .mlp_norm = "",
          .experts = {.router = "mlp.gate",
                      .gate = "mlp.experts.#.gate_proj",
                      .up = "mlp.experts.#.up_proj",
                      .down = "mlp.experts.#.down_proj",
                      .shared_gate = "mlp.shared_experts.gate_proj",
                      .shared_up = "mlp.shared_experts.up_proj",
                      .shared_down = "mlp.shared_experts.down_proj",
                      .renormalized = {"norm_topk_prob", true}},
          .norm = NormKind::layer,
          .norm_eps = 1e-5,
          .parallel = kYes,
          .rotary_order = RotaryOrder::interleaved,
          .mlp_bias = kNo,
          .tied = {"tie_word_embeddings", true},
          .window = "sliding_window",
          .full_every = 4,
          .full_is_unrotated = true,
          .also = {read_logit_scale, read_experts, read_cohere2_moe}};
}

Architecture aria_text() {
  return {.model_types = {"aria_text"},
          .models = "Aria, also inside aria",
          .lacking = {{"GPTQModel", ""}},
          .experts = {.router = "mlp.router",
                      .gate = "mlp.experts.#.gate_proj",
                      .up = "mlp.experts.#.up_proj",
                      .down = "mlp.experts.#.down_proj",
                      .tensors = ExpertTensors::turned_halves,
                      .stored_gate_up = "mlp.experts.fc1.weight",
                      .stored_down = "mlp.experts.fc2.weight",
                      .shared_gate = "mlp.shared_experts.gate_proj",
                      .shared_up = "mlp.shared_experts.up_proj",
                      .shared_down = "mlp.shared_experts.down_proj",
                      .renormalized = kYes},
          .also = {read_experts}};
}

// Values of narrower heads than keys; twice the heads of keys, and sinks, in blocks with a window.
Architecture mimo_v2_flash() {
  Architecture row = qwen2_row();
  row.model_types = {"mimo_v2_flash"};
  row.models = "MiMo-V2-Flash";
  row.lacking = {{"GPTQModel", ""}};
  row.sinks = "self_attn.attention_sink_bias";
  row.experts = deepseek_v3_row().experts;
  row.experts.shared_gate = row.experts.shared_up = row.experts.shared_down = "";
  row.experts.first_dense = 1;
  row.norm_eps = 1e-5;
  row.partial_rotary = 0.334;
  row.rope_theta = 5e6;
  row.q_bias = row.kv_bias = {"attention_bias"};
  row.windowed = kYes;
  row.full_every = 6;
  row.also = {read_experts, read_mimo};
  return row;
}

Architecture minimax_m3() {
  Architecture row = minimax_m2();
  row.model_types = {"minimax_m3_vl_text"};
  row.models = "MiniMax M3, inside minimax_m3_vl, in sequences of up to 2048 tokens";
  row.lacking = {};
  row.norm_weight = NormWeight::plus_one;
  row.qk_norm = QkNorm::head;
  add_shared_expert(row.experts, "block_sparse_moe.shared_experts.gate_proj", "block_sparse_moe.shared_experts.up_proj",
                    "block_sparse_moe.shared_experts.down_proj");
  row.also = {read_experts, read_minimax_m3};
  return row;
}

}  // namespace

std::vector<Architecture> expert_architectures() {
  return {mixtral(),        minimax_m2(), qwen2_moe(), qwen3_moe(),      qwen3_vl_moe(),
          mellum(),         olmoe(),      phimoe(),    granitemoe(),     granitemoeshared(),
          glm4_moe(),       glm4v_moe(),  dots1(),     ernie4_5_moe(),   ernie4_5_vl_moe(),
          hunyuan_v1_moe(), gpt_oss(),    llama4(),    granitemoe_swa(), solar_open(),
          sarvam_moe(),     exaone_moe(), kolibri1(),  flex_olmo(),      afmoe(),
          laguna(),         hy_v3(),      flint(),     cohere2_moe(),    aria_text(),
          mimo_v2_flash(),  minimax_m3()};
}

}  // namespace gptq
