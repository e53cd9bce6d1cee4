// Rows of model families whose blocks differ in size: in their heads, in the width of their MLPs, or in what they have.
#include "model/architectures.h"
#include "model/config_readers.h"

namespace gptq {
namespace {

Architecture openelm() {
  return {.model_types = {"openelm"},
          .models = "OpenELM 270M to 3B",
          .lacking = {{"transformers", ""}, {"GPTQModel", ""}, {"vLLM", ""}},
          .root = "transformer",
          .embedding = "token_embeddings",
          .attention_norm = "attn_norm",
          .mlp_norm = "ffn_norm",
          .o = "attn.out_proj",
          .qkv = "attn.qkv_proj",
          .q_norm = "attn.q_norm",
          .k_norm = "attn.k_norm",
          .down = "ffn.proj_2",
          .gate_up = "ffn.proj_1",
          .missing = {.heads = 1, .intermediate = 1},
          .qk_normed = {"normalize_qk_projections", true},
          .has_key_heads = false,
          .q_bias = kNo,
          .kv_bias = kNo,
          .o_bias = kNo,
          .mlp_bias = kNo,
          .tied = {"share_input_output_layers", true},
          .activation_key = "activation_fn_name",
          .also = {read_openelm}};
}

// Llama with blocks that a search has made smaller.
Architecture nemotron_nas() {
  return {.model_types = {"nemotron-nas"},
          .models = "Llama 3.3 Nemotron Super 49B, Llama 3.1 Nemotron Ultra 253B",
          .lacking = {{"transformers", ""}},
          .missing = {.intermediate = 1},
          .also = {read_nas_blocks}};
}

}  // namespace

std::vector<Architecture> varied_architectures() { return {openelm(), nemotron_nas()}; }

}  // namespace gptq
