// The table of model families: one row per family, names as in its Hugging Face checkpoints.
#include "model/architecture.h"

namespace gptq {

std::span<const Architecture> architectures() {
  static const Architecture table[] = {
      {.model_types = {"llama"},
       .embedding = "model.embed_tokens",
       .blocks = "model.layers",
       .final_norm = "model.norm",
       .head = "lm_head",
       .attention_norm = "input_layernorm",
       .mlp_norm = "post_attention_layernorm",
       .q = "self_attn.q_proj",
       .k = "self_attn.k_proj",
       .v = "self_attn.v_proj",
       .o = "self_attn.o_proj",
       .gate = "mlp.gate_proj",
       .up = "mlp.up_proj",
       .down = "mlp.down_proj",
       .fused_qkv = "self_attn.qkv_proj",
       .fused_gate_up = "mlp.gate_up_proj"},
  };
  return table;
}

}  // namespace gptq
