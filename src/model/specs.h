// A block's linears, in steps, and its float parts by name and size; known from config.json alone.
// A step is the linears that read the same input, in Llama q,k,v | o | gate,up | down.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/architecture.h"

namespace gptq {

// Module paths in this checkpoint: of a module below the root, "model.norm", and of a block, "model.layers.3".
std::string module_path(const ModelConfig& config, std::string_view module);
int64_t block_place(const ModelConfig& config, int64_t index);  // its number in the checkpoint
std::string block_module(const ModelConfig& config, int64_t index);
// "mlp.experts.#.up_proj" for expert 3: "mlp.experts.3.up_proj"
std::string of_expert(std::string_view path, int64_t expert);
// The weights of a module below the root, and of the output head, by the names of their tensors.
std::string tensor_name(const ModelConfig& config, std::string_view module);
std::string embedding_tensor(const ModelConfig& config);
std::string head_tensor(const ModelConfig& config);

// A block has the steps of its mixer, attention_in and attention_out or mixer_in and mixer_out, then those of its MLP;
// either may be missing. Attention beside a state space has attention_in, which is of both, attention_out and
// mixer_out. Latent attention has latent_in, latent_query (if queries have a latent) and latent_key_value instead of
// attention_in. A block with experts has shared_in and shared_out if it has a shared expert, then expert_in and
// expert_out per expert.
enum class StepKind : uint8_t {
  attention_in,
  latent_in,
  latent_query,
  latent_key_value,
  attention_out,
  mixer_in,
  mixer_out,
  mlp_in,
  mlp_out,
  shared_in,
  shared_out,
  expert_in,
  expert_out,
  head
};

// A linear by name and size.
struct LinearSpec {
  std::string name;
  int64_t out_features = 0, in_features = 0;
  bool bias = false;
  std::string fused;  // the module that vLLM and SGLang fuse it into, or empty
  StepKind step = StepKind::attention_in;
  int64_t expert = -1;
  double share = 1;  // of the tokens that pass it, if routing is balanced
  // Its weight in the checkpoint: out feature i is row first + i * stride of `tensor`, or that column where
  // `transposed`. Fused experts: `tensor` is [experts, rows, cols], of which this is matrix `matrix_index`; else -1.
  // Its bias is laid out the same way.
  std::string tensor, bias_tensor;
  std::vector<int64_t> shape, bias_shape;
  bool transposed = false;
  int64_t matrix_index = -1, first = 0, stride = 1;
};
// The linears of each step.
using StepSpecs = std::vector<std::vector<LinearSpec>>;
StepSpecs step_specs(const ModelConfig& config, int64_t block);
StepSpecs all_steps(const ModelConfig& config);  // of all blocks
// Whether a step is the last one of a mixer, whose output is added to the residual.
inline bool ends_mixer(StepKind step) { return step == StepKind::attention_out || step == StepKind::mixer_out; }

LinearSpec head_spec(const ModelConfig& config);

// Tensors of a block that are not quantized. Of a state space: dt_bias, A_log, D, its norm, and Mamba's x_proj, dt_proj
// and norms, which are small.
enum class Part : uint8_t {
  attention_norm,
  attention_post_norm,
  mlp_norm,
  mlp_post_norm,
  q_norm,
  k_norm,
  q_latent_norm,
  kv_latent_norm,
  sinks,
  head_gates,
  convolution,
  step_bias,
  decay,
  skip,
  gated_norm,
  selection,
  step_projection,
  step_norm,
  b_norm,
  c_norm,
  mixer_gates,
  query_scale,
  key_scale,
  router,
  choice_bias,
  shared_router,
  v_norm,
  beside_norm,
  beside_post_norm,
  shared_post_norm,
  router_norm,
  expert_scales,
  per_block_gate,
  per_block_out,
  per_block_norm,
  block_scale,
  activation_alphas,
  altup_norm,
  altup_router,
  altup_predictions,
  altup_corrections,
  altup_scale,
  laurel_left,
  laurel_right,
  laurel_norm
};
constexpr size_t kParts = 45;

// A part's tensors.
struct PartSpec {
  Part part = Part::attention_norm;
  std::vector<std::string> weights;  // stacked to [rows, cols]; none: all ones
  std::string bias;                  // or empty
  int64_t rows = 1, cols = 0;
  // Rows of each tensor, of which those beyond the part's are left out; empty: as many of all.
  std::vector<int64_t> heights;
  bool transposed = false;  // its one tensor is stored [cols, rows]
  bool plus_one = false;    // 1 is added to the weights
  float scale = 1;          // multiplies the weights and the bias
};
// The norm `module` over `cols` elements.
PartSpec norm_spec(const ModelConfig& config, const std::string& module, int64_t rows, int64_t cols);
// The shape of one of its tensors: of a convolution [channels, 1, taps].
std::vector<int64_t> matrix_shape(const PartSpec& spec, size_t tensor);
// The elements of its bias: a router, a convolution and a projection have one per row.
int64_t bias_size(const PartSpec& spec);
std::vector<PartSpec> part_specs(const ModelConfig& config, int64_t block);

}  // namespace gptq
