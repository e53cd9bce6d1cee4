// The typed description of a decoder: what a family is (Architecture, one row per family) and one model's sizes
// (ModelConfig, from config.json).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/ops.h"
#include "io/checkpoint.h"

namespace gptq {

enum class RopeKind : uint8_t { standard, linear, dynamic, yarn, llama3, longrope };

// Rotary position embedding, as transformers' modeling_rope_utils.py reads it from rope_scaling / rope_parameters.
struct Rope {
  RopeKind kind = RopeKind::standard;
  double theta = 10000;
  int64_t rotary_dim = 0;  // elements of a head that are rotated
  double factor = 1;
  int64_t original_positions = 0;  // original_max_position_embeddings, or max_position_embeddings
  int64_t max_positions = 0;       // max_position_embeddings
  double beta_fast = 32, beta_slow = 1, mscale = 0, mscale_all_dim = 0;  // yarn
  bool truncate = true;                                                  // yarn
  double low_freq_factor = 1, high_freq_factor = 4;                      // llama3
  std::vector<double> short_factor, long_factor;                         // longrope
  double attention_factor = 0;                                           // yarn, longrope; 0: derived
};

// cos and sin of every angle, [positions, rotary_dim / 2] f32 row-major, attention scaling included.
struct RopeTable {
  int64_t positions = 0, half_dim = 0;
  std::vector<float> cos, sin;
};

// Whether the frequencies differ between sequences of different length.
bool depends_on_length(const Rope& rope);

// The table for a sequence of `length` tokens, or for all up to that length where they do not depend on it.
RopeTable rope_table(const Rope& rope, int64_t length);

// One row per family: names as in the checkpoint, relative to a block.
struct Architecture {
  std::vector<std::string_view> model_types;  // config.json's model_type
  std::string_view embedding, blocks, final_norm,
      head;                                   // "model.embed_tokens", "model.layers", "model.norm", "lm_head"
  std::string_view attention_norm, mlp_norm;  // "input_layernorm", "post_attention_layernorm"
  std::string_view q, k, v, o;                // "self_attn.q_proj", ...
  std::string_view gate, up, down;            // "mlp.gate_proj", ...
  // What vLLM and SGLang call q,k,v and gate,up, which they load as one: "self_attn.qkv_proj", "mlp.gate_up_proj".
  std::string_view fused_qkv, fused_gate_up;
};

std::span<const Architecture> architectures();

// One model's sizes and constants.
struct ModelConfig {
  const Architecture* architecture = nullptr;
  std::string model_type;
  int64_t hidden = 0, intermediate = 0, blocks = 0, heads = 0, kv_heads = 0, head_dim = 0, vocabulary = 0,
          max_positions = 0;
  float norm_eps = 1e-6F;
  Activation activation = Activation::silu;
  bool attention_bias = false, mlp_bias = false, tied_embeddings = false;
  Rope rope;
};

// Reads config.json in old and new spelling of keys. Throws UnsupportedError for an unknown model_type (listing the
// known ones), rope type or activation, InputError for missing or senseless values; both name the file (in `folder`)
// and the key.
ModelConfig parse_model_config(const Json& config, const std::filesystem::path& folder);

}  // namespace gptq
