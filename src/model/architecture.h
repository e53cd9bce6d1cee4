// The typed description of a decoder: what a family is (Architecture, one row per family) and one model's sizes
// (ModelConfig, from config.json).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/checkpoint.h"
#include "ops/attention.h"
#include "ops/gates.h"

namespace gptq {

// The last is no rotation: it multiplies queries by a factor that grows with the position (Llama 4).
enum class RopeKind : uint8_t { standard, linear, dynamic, yarn, llama3, longrope, temperature };

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
  double long_attention_factor = 0;  // longrope beyond original_positions; 0: the same
  double temperature = 0, temperature_positions = 0, temperature_first = 0;  // temperature
};

// cos and sin of every angle, [positions, rotary_dim / 2] f32 row-major, attention scaling included.
struct RopeTable {
  int64_t positions = 0, half_dim = 0;
  std::vector<float> cos, sin;
};

// Whether the frequencies differ between sequences of different length.
bool depends_on_length(const Rope& rope);
struct ModelConfig;
bool depends_on_length(const ModelConfig& config);  // of any of its ropes

// The table for a sequence of `length` tokens, or for all up to that length where they do not depend on it.
RopeTable rope_table(const Rope& rope, int64_t length);

enum class NormKind : uint8_t { rms, layer };
// What a norm multiplies by: its weight, 1 + its weight, or 1 where it has no tensor.
enum class NormWeight : uint8_t { stored, plus_one, none };
// Norms of queries and keys: one weight for all heads, a weight of each head, over all heads at once; or of each head
// without a weight, in blocks that have rope.
enum class QkNorm : uint8_t { head, each_head, whole, unweighted };
// The order of features in a fused linear of queries, keys and values: q | k | v; group after group of the query heads
// that share a key head, each followed by its k and v; or CodeGen's four parts, each q | v | k of a quarter of heads.
enum class QkvOrder : uint8_t { concatenated, grouped, codegen };
enum class Positions : uint8_t { rope, learned, alibi };

// A flag of config.json; without a key always `missing`.
struct Flag {
  std::string_view key;
  bool missing = false;   // its value where the key is not there
  bool inverted = false;  // the key says the opposite
};
constexpr Flag kYes{"", true}, kNo{"", false};

// What a key of config.json must be for a row to hold, as JSON.
struct Condition {
  std::string_view key, value;
  std::string_view missing = "null";  // its value where the key is not there
};

// How a router's logits become weights: as probabilities of all experts, each expert's on its own, or by Phi-3.5-MoE's
// SparseMixer (arXiv 2409.12136).
enum class RouterKind : uint8_t { softmax, sigmoid, sparse_mixer };

// How the weights of experts are stored: each alone; or in one tensor for all of them, [experts, out, in] with the gate
// above the up projection, [experts, in, out] with the gate left of it, or [experts, in, out] with both in turn.
enum class ExpertTensors : uint8_t { split, halves, turned_halves, turned_pairs };

// A mixture of experts. In module paths '#' stands for an expert's number.
struct ExpertRow {
  std::string_view router, choice_bias;  // a module; a tensor that is added where experts are chosen, not weighed
  Flag router_bias = kNo;
  std::string_view gate, up, down;  // "mlp.experts.#.gate_proj", ...
  std::string_view gate_up;         // instead of gate and up
  ExpertTensors tensors = ExpertTensors::split;
  std::string_view stored_gate_up, stored_down, stored_gate_up_bias, stored_down_bias;
  Flag bias = kNo;
  std::string_view shared_gate, shared_up, shared_down;  // of an expert that every token passes
  std::string_view shared_gate_up;                       // instead of the first two
  std::string_view shared_router;                        // its weight is the sigmoid of this
  RouterKind kind = RouterKind::softmax;
  bool two_of_group = false;  // a group of experts is as good as its best two, otherwise as its best
  Flag renormalized = {"norm_topk_prob"};
  bool weighs_inputs = false;  // not outputs
};

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), instead of q, k and v. Without a q_lora_rank it has q.
struct LatentRow {
  std::string_view q_a, q_a_norm, q_b, kv_a, kv_a_norm, kv_b;
};

// A loader that does not load a family, and why: it has no such family where that is empty.
struct Lack {
  std::string_view loader, reason;
};

// What config.json may leave out; 0: it may not.
struct MissingSizes {
  int64_t heads = 0, key_heads = 0, head_dim = 0, vocabulary = 0, positions = 2048;
};

class Keys;
// Reads what a family has beyond the facts of its row.
using ReadConfig = void (*)(const Keys& keys, ModelConfig& config);

// One row per family, or per kind of model where one model_type has several. What a row does not name is as in Llama.
// Module paths are those of Hugging Face checkpoints: the first five below `root`, those of a block below it.
struct Architecture {
  std::vector<std::string_view> model_types;  // config.json's model_type
  std::string_view models;                    // that it covers, for the documentation
  std::vector<Lack> lacking;                  // of "transformers", "GPTQModel" and "vLLM": those that do not load it
  std::vector<Condition> when;                // which of its models; the first row that fits is taken

  std::string_view root = "model", embedding = "embed_tokens", position_embedding, embedding_norm, blocks = "layers",
                   final_norm = "norm", head = "lm_head";
  std::string_view attention_norm = "input_layernorm", attention_post_norm;
  // Without one, a parallel block's MLP reads what its attention does, and another's reads the residual.
  std::string_view mlp_norm = "post_attention_layernorm", mlp_post_norm;
  std::string_view q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj", o = "self_attn.o_proj";
  std::string_view qkv;  // instead of q, k and v
  std::string_view q_norm, k_norm, sinks;
  std::string_view gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj";
  std::string_view gate_up;  // instead of gate and up
  LatentRow latent;
  ExpertRow experts;
  // What vLLM and SGLang call q,k,v and gate,up where they load them as one.
  std::string_view fused_qkv = "self_attn.qkv_proj", fused_gate_up = "mlp.gate_up_proj";

  MissingSizes missing;
  NormKind norm = NormKind::rms;
  NormWeight norm_weight = NormWeight::stored;
  Flag norm_bias = kNo;
  double norm_eps = 1e-6;  // where config.json has none
  QkNorm qk_norm = QkNorm::head;
  std::string_view qk_norm_list;  // "norms": its weights are norms.0, norms.1, ... of each head
  Flag qk_normed = kYes;          // where q_norm and k_norm are named
  bool qk_norm_after_rope = false;
  Flag parallel = kNo;  // attention and MLP read one residual
  Positions positions = Positions::rope;
  int64_t position_offset = 0;  // of the table of learned positions
  RotaryOrder rotary_order = RotaryOrder::halves;
  double rope_theta = 10000;
  // Share of a head that is rotated where config.json does not say; 0: all of it, whatever config.json says.
  double partial_rotary = 0;
  bool scaled_scores = true;  // by 1 / sqrt(head_dim), unless config.json says otherwise
  QkvOrder qkv_order = QkvOrder::concatenated;
  bool has_key_heads = true;  // their number is in config.json; else every head is one
  Flag multi_query = kNo;     // one key head
  bool transposed = false;    // weights are stored [in, out]
  Flag q_bias = {"attention_bias"}, kv_bias = {"attention_bias"}, o_bias = {"attention_bias"}, mlp_bias = {"mlp_bias"},
       head_bias = kNo;
  Flag tied = {"tie_word_embeddings"};
  std::string_view activation_key = "hidden_act", activation = "silu";  // where it is, and without it
  // Blocks see so many keys as this key says; of each `full_every` blocks the last sees all, and has no rope where
  // `full_is_unrotated`.
  std::string_view window, full_every_key = "sliding_window_pattern";
  int64_t full_every = 0;
  Flag windowed = kYes;
  bool full_is_unrotated = false;
  std::vector<ReadConfig> also;
};

std::span<const Architecture> architectures();

// What differs between the blocks of one model.
struct BlockKind {
  int64_t window = 0, chunk = 0;  // as in AttentionShape
  int64_t rope = 0;               // of ModelConfig::ropes; -1: none
  float score_scale = 1;
  int64_t query_rope = -1;  // that queries pass besides
  bool has_experts = false;
};

struct Latent {
  int64_t q_rank = 0, kv_rank = 0;      // q_rank 0: queries are projected at once
  int64_t rope_dim = 0, value_dim = 0;  // of a head
};

struct Experts {
  int64_t count = 0, chosen = 0, intermediate = 0, shared_intermediate = 0;
  int64_t groups = 1, chosen_groups = 1;
  bool renormalized = false, router_bias = false, bias = false;
  float scale = 1;         // of the weights
  float jitter = 0.01F;    // sparse_mixer's
  float weight_floor = 0;  // that a sum of weights is at least, before they are divided by it
};

// One model's sizes and constants.
struct ModelConfig {
  const Architecture* architecture = nullptr;
  std::string model_type;
  std::string root, head;  // module paths in this checkpoint
  int64_t hidden = 0, intermediate = 0, blocks = 0, heads = 0, kv_heads = 0, head_dim = 0, vocabulary = 0,
          max_positions = 0;
  float norm_eps = 1e-6F;
  Activation activation = Activation::silu;
  bool q_bias = false, kv_bias = false, o_bias = false, mlp_bias = false, head_bias = false, norm_bias = false;
  bool tied_embeddings = false, parallel = false, qk_norm = false;
  float embedding_scale = 1, residual_scale = 1, logit_scale = 1;
  float score_cap = 0, logit_cap = 0, qkv_cap = 0;  // 0: none
  bool unit_head = false;                           // rows of the head are scaled to length one
  std::vector<float> slopes;                        // of each head, with ALiBi
  std::vector<Rope> ropes;
  std::vector<BlockKind> kinds;  // of each block
  Latent latent;
  Experts experts;
};

// Reads config.json in old and new spelling of keys. Throws UnsupportedError for an unknown model_type (listing the
// known ones), rope type or activation, InputError for missing or senseless values; both name the file (in `folder`)
// and the key. Models with other towers are read from their text_config.
ModelConfig parse_model_config(const Json& config, const std::filesystem::path& folder);

// The same, with module paths as this checkpoint spells them: prefixes may be missing, doubled or longer.
ModelConfig parse_model_config(const Checkpoint& checkpoint);

}  // namespace gptq
