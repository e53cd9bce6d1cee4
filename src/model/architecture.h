// The typed description of a decoder: Architecture, one row per model family, and ModelConfig, the sizes of one model
// from config.json.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "io/checkpoint.h"
#include "ops/attention.h"
#include "ops/delta_rule.h"
#include "ops/gates.h"

namespace gptq {

// `temperature` does not rotate: it multiplies queries by a factor that grows with the position (Llama 4).
enum class RopeKind : uint8_t { standard, linear, dynamic, yarn, llama3, longrope, proportional, temperature };

// Rotary position embedding, from rope_scaling or rope_parameters as in transformers' modeling_rope_utils.py.
struct Rope {
  RopeKind kind = RopeKind::standard;
  double theta = 10000;
  int64_t rotary_dim = 0;  // rotated elements of a head
  double rotated = 1;      // proportional: the share of them that turns at all
  double factor = 1;
  int64_t original_positions = 0;  // original_max_position_embeddings, or max_position_embeddings
  int64_t max_positions = 0;       // max_position_embeddings
  double beta_fast = 32, beta_slow = 1, mscale = 0, mscale_all_dim = 0;  // yarn
  bool truncate = true;                                                  // yarn
  double low_freq_factor = 1, high_freq_factor = 4;                      // llama3
  std::vector<double> short_factor, long_factor;                         // longrope
  double attention_factor = 0;                                           // yarn, longrope; 0: derived
  double long_attention_factor = 0;  // longrope, beyond original_positions; 0: the same
  double temperature = 0, temperature_positions = 0, temperature_first = 0;  // temperature
  bool reversed = false;                                                     // rotates by the opposite angles
};

// cos and sin of all angles, [positions, rotary_dim / 2] f32 row-major, times the attention factor.
struct RopeTable {
  int64_t positions = 0, half_dim = 0;
  std::vector<float> cos, sin;
};

// Whether the frequencies depend on the sequence length.
bool depends_on_length(const Rope& rope);
// Whether a position is rotated differently in sequences of these two lengths.
bool differ_by_length(const Rope& rope, int64_t a, int64_t b);
struct ModelConfig;
bool depends_on_length(const ModelConfig& config);  // any of its ropes

// Whether its frequencies and factors are finite for sequences of any length.
bool is_finite(const Rope& rope);

// The table for a sequence of `length` tokens; for all shorter ones too unless the frequencies depend on the length.
RopeTable rope_table(const Rope& rope, int64_t length);

enum class NormKind : uint8_t { rms, layer };
// A norm multiplies by its weight, by 1 + its weight, or by 1 if it has no tensor.
enum class NormWeight : uint8_t { stored, plus_one, none };
// Norms of queries and keys: per head with one weight for all heads, per head with a weight each, over all heads at
// once; or per head without a weight, in blocks that have rope.
enum class QkNorm : uint8_t { head, each_head, whole, unweighted };
// The order of features in a fused qkv linear: q | k | v; per key head its query heads followed by its k and v; or
// CodeGen's four parts, each q | v | k of a quarter of the heads.
enum class QkvOrder : uint8_t { concatenated, grouped, codegen };
enum class Positions : uint8_t { rope, learned, alibi, sinusoidal };

// A boolean key of config.json; without a key the constant `missing`.
struct Flag {
  std::string_view key;
  bool missing = false;   // its value if the key is absent
  bool inverted = false;  // the key has the opposite meaning
};
constexpr Flag kYes{"", true}, kNo{"", false};

// A row applies if this key of config.json has this value, as JSON.
struct Condition {
  std::string_view key, value;
  std::string_view missing = "null";  // its value if the key is absent
};

// How a router's logits become weights: softmax over all experts, sigmoid of each, or Phi-3.5-MoE's SparseMixer
// (arXiv 2409.12136).
enum class RouterKind : uint8_t { softmax, sigmoid, sparse_mixer };

// How the experts' gate and up projections are stored: a tensor each; or one tensor for all experts: [experts, out, in]
// with the gate's rows first, [experts, in, out] with the gate's columns first, or [experts, in, out] interleaved.
enum class ExpertTensors : uint8_t { split, halves, turned_halves, turned_pairs };

// A mixture of experts. In module paths '#' stands for the expert's index.
struct ExpertRow {
  std::string_view router, choice_bias;  // a module; a bias tensor used for choosing experts, not for their weights
  bool turned_router = false;            // its weight is stored [in, out]
  int64_t choice_biases = 1;             // rows of choice_bias; the first is that of tokens of text
  Flag router_bias = kNo;
  bool biases_logits = false;       // choice_bias is added to logits, not to scores
  std::string_view gate, up, down;  // "mlp.experts.#.gate_proj", ...
  std::string_view gate_up;         // if fused, instead of gate and up
  ExpertTensors tensors = ExpertTensors::split;
  std::string_view stored_gate_up, stored_down, stored_gate_up_bias, stored_down_bias;
  Flag bias = kNo;
  std::string_view shared_gate, shared_up, shared_down;  // the expert that all tokens pass
  std::string_view shared_gate_up;                       // if fused, instead of the first two
  std::string_view shared_router;                        // the shared expert's weight is its sigmoid
  std::string_view post_norm;                            // of the sum of all experts; else the row's mlp_post_norm
  // Experts beside the MLP, which is the shared expert: they have norms of their own, for their input, their sum and
  // that of the MLP; the router's, of the residual, has a tensor with factors; and each expert's weight has one.
  std::string_view beside_norm, beside_post_norm, shared_post_norm, router_norm, expert_scales;
  RouterKind kind = RouterKind::softmax;
  bool two_of_group = false;  // rates a group by its best two experts, not by the best one
  Flag renormalized = {"norm_topk_prob"};
  float sum_addend = 0;        // of the sum that weights are divided by
  bool weighs_inputs = false;  // instead of outputs
  int64_t first_dense = 0;     // blocks without experts before the first with, if config.json does not say
};

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), instead of q, k and v; keeps q without a q_lora_rank.
struct LatentRow {
  std::string_view q_a, q_a_norm, q_b, kv_a, kv_a_norm, kv_b;
};

// Gemma's embeddings per block: a second table, whose row of a token and a projection of its embedding, normed, are
// added up. Each block multiplies its part by a gate, and adds it to the residual through a projection and a norm.
struct PerBlockRow {
  std::string_view embedding, projection, projection_norm;  // below the root
  std::string_view gate, out, post_norm;                    // of a block
};

// AltUp (arXiv 2301.13310): several residuals, of which the first is embedded and read by the blocks. Projections of
// it, in two lists, make the others and their part of the end. A block predicts and corrects all of them.
struct AltUpRow {
  std::string_view projections, unembed_projections;  // below the root
  std::string_view router_norm, router, prediction_coefficients, correction_coefficients, output_scale;  // of a block
};

// LAuReL (arXiv 2411.07501): a product of low rank of the mixer's input, normed and added to it, then to the residual.
struct LaurelRow {
  std::string_view left, right, post_norm;
};

// What mixes the tokens of a block: attention; a gated short convolution (LFM2); the gated delta rule; a state
// space, alone or beside attention; nothing, where a block has an MLP alone.
enum class Mixer : uint8_t { attention, convolution, delta_rule, state_space, attention_and_state_space, none };

// A gated short convolution instead of attention: its linears, and the convolution between them.
struct ConvolutionRow {
  std::string_view in, convolution, out;
};

// Norms of Mamba's b, c and of what its step sizes are made of.
enum class SelectionNorms : uint8_t { none, stored, unweighted };

// A state space instead of attention or beside it: Mamba-2, or Mamba, which scans. All have the same names.
struct StateSpaceRow {
  std::string_view module;
  bool scans = false;
  SelectionNorms selection_norms = SelectionNorms::none;
};

// The gated delta rule (arXiv 2412.06464) instead of attention. Its input linear is one for queries, keys, values and
// the output's gate z, which has for each key head its query, its key, its values and their gates; or there is one for
// z, and one for queries | keys | values or one for each of them, as there are convolutions. `gates` make beta and the
// decay: for each key head those of its values, or beta | decay in two modules. These are not quantized, as no loader's
// kernels take so few rows.
struct DeltaRow {
  std::string_view qkvz, z;
  std::vector<std::string_view> qkv, gates, convolutions;
  std::string_view decay_rate, decay_bias, norm, out;
  double norm_eps = 0;          // of `norm`; 0: the model's
  std::string_view fused_qkvz;  // the name of vLLM and SGLang for qkv and z
};

// The norms before and after the mixer of a block, and before and after its MLP; empty: none.
struct BlockNorms {
  std::string_view mixer, mixer_post, mlp, mlp_post;
};

// A loader that does not load a family, and why; empty: it does not have the family.
struct Lack {
  std::string_view loader, reason;
};

// Defaults of sizes that config.json may omit; 0: required.
struct MissingSizes {
  int64_t heads = 0, key_heads = 0, head_dim = 0, vocabulary = 0, positions = 2048, blocks = 0, intermediate = 0;
};

class Keys;
// Reads a family's keys that no field of its row describes.
using ReadConfig = void (*)(const Keys& keys, ModelConfig& config);

// One row per family, or per kind of model if a model_type has several. Defaults are Llama's. Module paths are those of
// Hugging Face checkpoints: the first five relative to `root`, those of a block relative to the block.
struct Architecture {
  std::vector<std::string_view> model_types;  // config.json's model_type
  std::string_view models;                    // covered models, for the documentation
  std::vector<Lack> lacking;                  // loaders without it: "transformers", "GPTQModel", "vLLM"
  std::vector<Condition> when;                // conditions; the first matching row applies

  std::string_view root = "model", embedding = "embed_tokens", position_embedding, embedding_norm, blocks = "layers",
                   final_norm = "norm", head = "lm_head";
  std::string_view head_dense, head_norm;  // a linear and the activation before the logits, and a norm; or none
  int64_t embedding_extra = 0;             // rows of the embedding beyond the vocabulary
  std::string_view attention_norm = "input_layernorm", attention_post_norm;
  bool first_unnormed = false;  // the first block has no attention_norm
  // Without an mlp_norm the MLP reads the attention's input in a parallel block, else the residual.
  std::string_view mlp_norm = "post_attention_layernorm", mlp_post_norm;
  std::optional<BlockNorms> norms_without_attention;  // of blocks with another mixer, where they differ
  std::string_view q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj", o = "self_attn.o_proj";
  std::string_view qkv;          // if fused, instead of q, k and v
  std::string_view last_o_bias;  // a bias of o that the last block alone has
  std::string_view q_norm, k_norm, sinks;
  // A linear of the attention's input, whose activation multiplies the attention's output. One with a feature for each
  // head multiplies the heads and is not quantized: no loader's kernels take so few rows, nor does 3 bits' packing.
  std::string_view attention_gate;
  Activation attention_gate_activation = Activation::sigmoid;
  std::string_view gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj";
  std::string_view gate_up;  // if fused, instead of gate and up
  LatentRow latent;
  ConvolutionRow convolution;
  StateSpaceRow state_space;
  DeltaRow delta;
  ExpertRow experts;
  PerBlockRow per_block;
  AltUpRow altup;
  LaurelRow laurel;
  std::string_view activation_alphas;  // a module with alpha_p and alpha_n, of the MLP's xIELU
  std::string_view block_scale;        // a tensor of one number that multiplies the block's output
  // Names of vLLM and SGLang for q,k,v and gate,up, which they load as one module.
  std::string_view fused_qkv = "self_attn.qkv_proj", fused_gate_up = "mlp.gate_up_proj";

  MissingSizes missing;
  NormKind norm = NormKind::rms;
  NormWeight norm_weight = NormWeight::stored;
  Flag norm_bias = kNo;
  double norm_eps = 1e-6;  // if config.json has none
  QkNorm qk_norm = QkNorm::head;
  Flag post_normed = kYes;        // whether attention_post_norm and mlp_post_norm apply
  std::string_view qk_norm_list;  // "norms": the weights per head are norms.0, norms.1, ...
  Flag qk_normed = kYes;          // whether q_norm and k_norm apply
  bool qk_norm_after_rope = false;
  bool v_normed = false;  // values are normalized per head, without a weight
  Flag parallel = kNo;    // attention and MLP read the same residual
  Positions positions = Positions::rope;
  int64_t position_offset = 0;  // first row of the table of learned positions
  RotaryOrder rotary_order = RotaryOrder::halves;
  double rope_theta = 10000;
  // Rotated share of a head, unless config.json has it; 0: the whole head, whatever config.json says.
  double partial_rotary = 0;
  bool scaled_scores = true;  // by 1 / sqrt(head_dim), unless config.json has a factor
  bool gated_heads = false;   // q has each head's query and a gate, whose sigmoid multiplies the head's result
  QkvOrder qkv_order = QkvOrder::concatenated;
  bool has_key_heads = true;  // config.json has their number; else one per query head
  Flag multi_query = kNo;     // one key head
  bool transposed = false;    // weights are stored [in, out]
  Flag q_bias = {"attention_bias"}, kv_bias = {"attention_bias"}, o_bias = {"attention_bias"}, mlp_bias = {"mlp_bias"},
       head_bias = kNo;
  Flag tied = {"tie_word_embeddings"};
  std::string_view activation_key = "hidden_act", activation = "silu";  // the key, and its default
  // `window` is the key with the number of keys that a block attends to. The last of each `full_every` blocks attends
  // to all keys, without rope if `full_is_unrotated`.
  std::string_view window, full_every_key = "sliding_window_pattern";
  int64_t full_every = 0;
  Flag windowed = kYes;
  bool full_is_unrotated = false;
  std::vector<ReadConfig> also;
};

std::span<const Architecture> architectures();

// Properties that differ between the blocks of a model.
struct BlockKind {
  Mixer mixer = Mixer::attention;
  bool has_mlp = true;            // or experts
  int64_t window = 0, chunk = 0;  // as in AttentionShape
  int64_t rope = 0;               // index into ModelConfig::ropes; -1: none
  float score_scale = 1;
  int64_t query_rope = -1;  // applied to queries in addition; -1: none
  bool has_experts = false;
  // The model's, unless a family's reader sets others.
  int64_t heads = 0, kv_heads = 0, head_dim = 0, intermediate = 0;
  int64_t value_dim = 0;      // of a head; at most head_dim
  bool has_sinks = true;      // where the row has them
  bool value_is_key = false;  // no linear for values: they are the keys before norm and rope
  // The first of the state's columns that keep its keys and values for later blocks, or -1; with `reuses_keys` it
  // takes them from there, and has no linears for them.
  int64_t keys_at = -1;
  bool reuses_keys = false;
  double sparsity = 0;  // the share of the MLP's gate that would become 0 if it were normal; 0: no such bound
};

inline bool attends(const BlockKind& kind) {
  return kind.mixer == Mixer::attention || kind.mixer == Mixer::attention_and_state_space;
}
inline bool mixes_by_state_space(const BlockKind& kind) {
  return kind.mixer == Mixer::state_space || kind.mixer == Mixer::attention_and_state_space;
}

// Whether two blocks have the same steps and parts, of the same sizes.
inline bool have_same_steps(const BlockKind& a, const BlockKind& b) {
  const auto steps_of = [](const BlockKind& kind) {
    return std::tuple(kind.mixer, kind.has_mlp, kind.has_experts, kind.heads, kind.kv_heads, kind.head_dim,
                      kind.value_dim, kind.intermediate, kind.value_is_key, kind.reuses_keys, kind.keys_at >= 0,
                      kind.sparsity > 0);
  };
  return steps_of(a) == steps_of(b);
}

struct Latent {
  int64_t q_rank = 0, kv_rank = 0;      // q_rank 0: queries have no latent
  int64_t rope_dim = 0, value_dim = 0;  // of a head
};

struct ShortConvolution {
  int64_t taps = 0;   // tokens that it reads
  bool bias = false;  // of the convolution and its linears
};

struct StateSpace {
  int64_t heads = 0, head_dim = 0, groups = 1, state = 0;  // Mamba: a head for each channel
  int64_t taps = 0;                                        // of the convolution
  int64_t rank = 0;                                        // Mamba: of the step sizes
  float min_step = 0, max_step = INFINITY;
  bool in_bias = false, out_bias = false, convolution_bias = true;
  bool has_norm = true, norm_before_gate = false;
  float selection_eps = 1e-6F;
  // Of the gate, x, b, c and the step sizes, as they are projected.
  std::array<float, 5> multipliers = {1, 1, 1, 1, 1};

  int64_t width() const { return heads * head_dim; }
  bool is_scaled() const { return multipliers != std::array<float, 5>{1, 1, 1, 1, 1}; }
};

// Of the gated delta rule.
struct DeltaRule {
  DeltaShape shape;
  int64_t taps = 0;      // of the convolution of queries, keys and values
  float beta_scale = 1;  // beta is a sigmoid times this
  int64_t key_width() const { return shape.key_heads * shape.key_dim; }
  int64_t value_width() const { return shape.value_heads * shape.value_dim; }
  int64_t mixed_width() const { return 2 * key_width() + value_width(); }
  // Of one tensor for queries | keys | values, or of one for each of them.
  std::vector<int64_t> widths(size_t tensors) const {
    if (tensors == 1) return {mixed_width()};
    return {key_width(), key_width(), value_width()};
  }
};

struct Experts {
  int64_t count = 0, chosen = 0, intermediate = 0, shared_intermediate = 0;
  int64_t groups = 1, chosen_groups = 1;
  bool renormalized = false, router_bias = false, bias = false;
  float scale = 1;         // multiplies the weights
  float shared_scale = 1;  // multiplies the shared expert's output
  float jitter = 0.01F;    // of sparse_mixer
  float weight_floor = 0;  // minimum of the sum that weights are divided by
};

// One model's sizes and constants.
struct ModelConfig {
  const Architecture* architecture = nullptr;
  std::string model_type;
  std::string root, head;      // module paths in this checkpoint
  std::string embedding;       // the module that holds the embedding; empty: the row's, below the root
  bool has_head = true;        // the checkpoint has one, or ties it
  std::string untied_by_head;  // the embedding's tensor, where config.json ties a stored head that differs from it
  int64_t hidden = 0, intermediate = 0, blocks = 0, heads = 0, kv_heads = 0, head_dim = 0, vocabulary = 0,
          max_positions = 0;
  float norm_eps = 1e-6F;
  Activation activation = Activation::silu;
  bool q_bias = false, kv_bias = false, o_bias = false, mlp_bias = false, head_bias = false, norm_bias = false;
  bool tied_embeddings = false, parallel = false, qk_norm = false, post_norm = true;
  bool gate_per_head = false;  // of the attention gate
  NormKind norm = NormKind::rms;
  RotaryOrder rotary_order = RotaryOrder::halves;
  // Elements of a token's state between blocks: hidden, the embeddings per block, keys and values kept, and the other
  // residuals.
  int64_t state_width = 0;
  int64_t per_block = 0;             // width of a block's embedding; 0: none
  int64_t per_block_vocabulary = 0;  // rows of its table; tokens beyond them have its first
  int64_t residuals = 1;             // AltUp's
  int64_t residuals_at = 0;          // the first column of those but the first, behind which a prediction is kept
  bool scales_output = true;         // AltUp's, before the embedding per block is added
  int64_t laurel_rank = 0;           // 0: none
  int64_t dense_tokens = 0;  // longer sequences would need sparse attention, which is not computed; 0: of any length
  float embedding_scale = 1, residual_scale = 1, logit_scale = 1, value_scale = 1;
  // Of what is added to the residual, in addition to residual_scale, and of what the MLP reads.
  float attention_scale = 1, state_space_scale = 1, mlp_scale = 1, mlp_input_scale = 1;
  float score_cap = 0, logit_cap = 0, qkv_cap = 0;  // 0: none
  bool unit_head = false;                           // rows of the head are normalized to length 1
  NormWeight norm_weight = NormWeight::stored;
  std::vector<float> slopes;  // ALiBi's, one per head
  std::vector<Rope> ropes;
  std::vector<BlockKind> kinds;  // one per block
  std::vector<int64_t> places;   // the blocks' numbers in the checkpoint, where some are left out; else empty
  Latent latent;
  ShortConvolution convolution;
  StateSpace state_space;
  DeltaRule delta;
  Experts experts;
  ExpertRow expert_row;               // the architecture's, or as the checkpoint names and stores its experts
  std::vector<std::string> unread;    // keys that nothing reads and that may change the computation: "key: value"
  std::vector<std::string> warnings;  // what a user should know, a sentence each
};

// Reads config.json, with old and new spellings of keys. Throws UnsupportedError for a model_type (listing the
// supported ones), rope type or activation that is not supported, InputError for missing or invalid values; both name
// the file (in `folder`) and the key. Multimodal models are read from their text_config (llm_config, language_config).
ModelConfig parse_model_config(const Json& config, const std::filesystem::path& folder);

// The same, with module paths adapted to the checkpoint: prefixes may be missing, doubled or longer. As in
// transformers, the head is tied only to an embedding that it equals, or where one of both is not stored. Throws
// InputError where its tensors are of another vocabulary, width, or of fewer blocks or experts.
ModelConfig parse_model_config(const Checkpoint& checkpoint);

// Checkpoint::dequantize(), with linears as the model's family stores them.
void dequantize(Checkpoint& checkpoint);

}  // namespace gptq
