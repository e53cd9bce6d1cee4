// A block's weights as steps, and how to run them. A step is the linears that read the same input, in Llama
// q,k,v | o | gate,up | down. One step has one Hessian.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/parallel.h"
#include "io/checkpoint.h"
#include "model/architecture.h"

namespace gptq {

struct Linear {
  std::string name;  // module path: "model.layers.0.self_attn.q_proj"
  Matrix weight;     // [out_features, in_features], compute dtype
  Matrix bias;       // [1, out_features] or empty
};

struct Step {
  std::vector<Linear> linears;
};

// What the linears of a step are. An attention with latents has latent_in, latent_query (but where queries have no
// latent) and latent_key_value in the place of attention_in; a block with experts has shared_in and shared_out, where
// all tokens share one, and then expert_in and expert_out of each.
enum class StepKind : uint8_t {
  attention_in,
  latent_in,
  latent_query,
  latent_key_value,
  attention_out,
  mlp_in,
  mlp_out,
  shared_in,
  shared_out,
  expert_in,
  expert_out,
  head
};

// What stays float in a block.
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
  router,
  choice_bias,
  shared_router
};
constexpr size_t kParts = 12;

struct Affine {
  Matrix weight, bias;  // f32; the bias may be empty
};
using Parts = std::array<Affine, kParts>;

// A part's tensors.
struct PartSpec {
  Part part = Part::attention_norm;
  std::vector<std::string> weights;  // that lie below each other in [rows, cols]; none: all ones
  std::string bias;                  // or empty
  int64_t rows = 1, cols = 0;
  bool plus_one = false;  // 1 is added to the weights
  float scale = 1;        // they and the bias are multiplied by it
};
std::vector<PartSpec> part_specs(const ModelConfig& config, int64_t block);

struct Block {
  int64_t index = 0;
  Backend* backend = nullptr;    // where it is and computes
  std::vector<StepKind> kinds;   // of its steps
  std::vector<int64_t> experts;  // of its steps; -1: none
  std::vector<Step> steps;       // a step that is not loaded has linears without weights
  Parts parts;
  Matrix slopes;  // [1, heads] f32, with ALiBi
};

// The linears of one step by name and size, known without reading weights.
struct LinearSpec {
  std::string name;
  int64_t out_features = 0, in_features = 0;
  bool bias = false;
  std::string fused;  // the module that vLLM and SGLang make of it and its siblings, or empty
  StepKind step = StepKind::attention_in;
  int64_t expert = -1;
  double share = 1;  // of the tokens that pass it, where experts have equal shares
  // Its weight in the checkpoint: out feature i is row, or column where `transposed`, first + i * stride of the matrix;
  // or of matrix `slab` of a tensor of several. Its bias is laid out the same way.
  std::string tensor, bias_tensor;
  std::vector<int64_t> shape, bias_shape;
  bool transposed = false;
  int64_t slab = -1, first = 0, stride = 1;
};
using StepSpecs = std::vector<std::vector<LinearSpec>>;
StepSpecs step_specs(const ModelConfig& config, int64_t block);

LinearSpec head_spec(const ModelConfig& config);

// A norm over `cols` elements, of `module`.
PartSpec norm_spec(const ModelConfig& config, const std::string& module, int64_t rows, int64_t cols);

// Which tokens of a batch pass each expert of a block.
struct Routing {
  std::vector<std::vector<int32_t>> rows;   // of each expert, rising
  std::vector<std::vector<float>> weights;  // beside them
  std::vector<float> shared;                // of each token's shared expert; empty: 1
};

// Several sequences on their way through the blocks.
struct Batch {
  std::vector<int64_t> offsets;  // sequence s is rows [offsets[s], offsets[s + 1])
  Matrix residual;               // [tokens, hidden] between blocks
  Matrix input;                  // [tokens, in_features] of the current step, or empty
  // In a block with experts `input` is [tokens, 2 hidden]: what all of them read, and the sum of what they gave.
  Routing routing;
  // Inputs are rebuilt: where both branches of a block read one residual, nothing is added before finish().
  bool is_rebuilt = false;
  int64_t tokens() const { return offsets.empty() ? 0 : offsets.back(); }
};

// What one step of a block's way does to a batch, so that states which wait elsewhere move no more than they must.
struct StateUse {
  bool reads_residual = true, reads_input = true, writes_residual = true;
};
// Of enter(step), or of finish() where step is the number of steps: with a kept input, or after rebuild_input(step).
StateUse state_use(const ModelConfig& config, const StepSpecs& steps, int64_t step, bool keeps_inputs);
// Whether inputs may be dropped and rebuilt: not with experts.
bool can_rebuild_inputs(const ModelConfig& config);
// Elements of the widest input of a token that waits between steps.
int64_t widest_input(const ModelConfig& config);
// The first step whose weights these need.
int64_t first_needed(const ModelConfig& config, const StepSpecs& steps, int64_t step, bool keeps_inputs);

// Makes the weight [out, in] of a linear on a backend, from what was read of it into host memory.
using PlaceWeight = std::function<Matrix(Backend& backend, DType dtype)>;
// Reads a quantized linear into host memory; an empty function for one whose plain weight is in the checkpoint. Any
// thread may call it.
using WeightReader = std::function<PlaceWeight(const LinearSpec& spec)>;

// A block in host memory, on its way to a device.
struct StagedBlock {
  struct StagedLinear {
    std::string name;
    PlaceWeight weight;
    Matrix bias;  // in the stored dtype, or empty
  };
  int64_t index = 0;
  Parts parts;  // f32
  std::vector<StepKind> kinds;
  std::vector<int64_t> experts;
  std::vector<std::vector<StagedLinear>> steps;
};

// Paths in this checkpoint: of a module below the root, "model.norm"; of a block, "model.layers.3".
std::string module_path(const ModelConfig& config, std::string_view module);
std::string block_module(const ModelConfig& config, int64_t index);

// A checkpoint opened as a network. Weights are read block by block, on demand; a block computes on the backend that it
// was loaded on, everything else on the backend given here.
class Model {
 public:
  // Validates that every tensor of every block exists with the shape that config.json implies (names of quantized
  // linears excepted when `reader` is given). Without a reader, plain float weights are read from the checkpoint.
  // Tensors that config.json does not imply are ignored, as transformers does: a head beside tied embeddings, a bias
  // that attention_bias denies.
  Model(const Checkpoint& checkpoint, Backend& backend, DType dtype, WeightReader reader = nullptr);

  const ModelConfig& config() const { return config_; }
  DType dtype() const { return dtype_; }

  // Reads one block into host memory; any thread may call it. Throws InputError where a weight holds NaN or infinity,
  // naming the tensor and how many.
  StagedBlock stage_block(int64_t index, Memory& memory = host_memory()) const;
  // The same block without reading it, in memory that nobody looks at: for counting.
  StagedBlock blank_block(int64_t index, Memory& memory) const;
  // Brings a block to a backend: whole; or its parts first and its steps one by one, each leaving host memory then.
  Block load_block(const StagedBlock& staged, Backend& backend) const;
  Block load_block(int64_t index) const { return load_block(stage_block(index), backend_); }
  Block begin_block(const StagedBlock& staged, Backend& backend) const;
  void load_step(StagedBlock& staged, Block& block, int64_t step) const;
  // Gives the memory of a step's weights back.
  static void drop_step(Block& block, int64_t step);

  // Looks the tokens of all sequences up, reading only their rows of the embedding. Throws InputError for an id outside
  // the vocabulary, and for more tokens than learned positions. Where rope depends on the length, the sequences of one
  // batch must have one length. Rows are read on all threads of the pool, where one is given.
  Batch embed(std::span<const std::vector<int32_t>> sequences, Backend& backend, ThreadPool* pool = nullptr) const;
  Batch embed(std::span<const std::vector<int32_t>> sequences) const { return embed(sequences, backend_); }
  // The batch that embed() makes of so many tokens, without reading: for counting.
  Batch blank_batch(std::vector<int64_t> offsets, Backend& backend, Memory& host) const;

  // Makes what blocks need on a backend beside their weights, for sequences of up to so many tokens; else it is made
  // when first needed.
  void prepare(int64_t longest, Backend& backend);

  // Sequences of a batch that pass a step at once. All, until a device runs out of memory for what a step needs beside
  // its input and output: then half as many, down to one. What comes out is the same.
  int64_t sequences_at_once() const { return sequences_at_once_; }
  void set_sequences_at_once(int64_t count) { sequences_at_once_ = count; }

  // The sweep: applies the previous step's linears (none before step 0) and the glue up to step `step`.
  void enter(const Block& block, int64_t step, Batch& batch);
  // The input [tokens, in_features] of a step that a batch has entered and whose linears all tokens pass.
  ConstMatrixView input(const Block& block, int64_t step, const Batch& batch) const;
  // Calls visit(x, y) with the inputs of a step that `batch` has entered, piece by piece: x [rows, in_features], and y
  // of the same tokens in `original`, which has entered the step of another block; empty where that is null. An
  // expert's are those of its tokens, or of all tokens.
  using VisitInputs = std::function<void(ConstMatrixView x, ConstMatrixView y)>;
  struct Original {
    const Block* block = nullptr;
    const Batch* batch = nullptr;
  };
  void visit_inputs(const Block& block, int64_t step, const Batch& batch, Original original, bool all_tokens,
                    const VisitInputs& visit) const;
  // Makes the input that enter(step), or finish() where step is the number of steps, starts from, out of the residual
  // alone: for states whose inputs are not kept. What it gives has the bits of what was dropped. The steps from
  // first_needed() on must still be loaded.
  void rebuild_input(const Block& block, int64_t step, Batch& batch);
  // Applies the last step and adds it to the residual; batch.input is empty afterwards.
  void finish(const Block& block, Batch& batch);
  // All steps: the block's whole forward pass.
  void forward(const Block& block, Batch& batch);

  // Where the final norm and the output head compute; the model's backend, unless told.
  void compute_head_on(Backend& backend) { head_backend_ = &backend; }
  // Final norm of a batch that is there: the head's input.
  Matrix head_input(const Batch& batch);
  // The head's weight in the model's dtype, there; the model keeps no copy.
  Matrix take_head();
  // Final norm and output head of rows [first, first + count) of the residual, which is there: logits [count,
  // vocabulary] f32.
  Matrix logits(const Batch& batch, int64_t first, int64_t count);
  // Gives the memory of the final norm and the head back.
  void drop_head() {
    final_norm_ = {};
    head_ = Matrix();
    head_bias_ = Matrix();
  }
  // Puts matrices that nobody looks at into their places: for counting.
  void set_blank_head();

 private:
  struct RopeMatrices {
    Matrix cos, sin;  // [positions, rotary_dim / 2] f32
  };

  // Reads tensors into some memory; or takes the room for them only, for counting.
  struct Loader;
  struct HostRows;  // of the embedding and of learned positions

  void check_tensors() const;
  void check_finite(const StoredTensor& tensor, ConstMatrixView values) const;
  StagedBlock stage(int64_t index, const Loader& loader, bool use_reader) const;
  Linear place(const StagedBlock::StagedLinear& staged, Backend& backend) const;
  Batch embedded(HostRows rows, Backend& backend, const Loader& loader) const;
  // y = x w' + bias, in a matrix with room for at least so many rows.
  Matrix apply(Backend& backend, const Linear& linear, ConstMatrixView x, int64_t room = 0) const;
  // Calls body(rows of the batch, their offsets) for as many sequences at a time as find room. A body allocates before
  // it changes anything, as it is called again for fewer sequences where that fails.
  template <typename Body>
  void in_passes(const Batch& batch, const Body& body);
  void normalize(Backend& backend, ConstMatrixView x, const Affine& norm, MatrixView y) const;
  // The residual after a norm, or as it is where the block has no such norm.
  Matrix normed_residual(const Block& block, Part norm, const Batch& batch) const;
  Matrix mlp_input(const Block& block, const Batch& batch) const;
  Matrix attend(const Block& block, const Batch& batch);
  Matrix latents(const Block& block, const Batch& batch);
  Matrix attend_latents(const Block& block, const Batch& batch);
  void attend_heads(const Block& block, const RopeMatrices* rope, const RopeMatrices* query_rope,
                    SequenceOffsets offsets, int64_t head_dim, MatrixView q, MatrixView k, MatrixView v,
                    MatrixView y) const;
  void begin_experts(const Block& block, Batch& batch);
  // Inputs of some rows of a batch to an expert's step, in a matrix of rows_at_once(): then every piece takes the same.
  Matrix expert_input(const Block& block, int64_t step, const Batch& batch, std::span<const int32_t> rows,
                      std::span<const float> weights) const;
  // Adds what a shared expert, or another, gives, whose last step this is.
  void add_shared(const Block& block, int64_t step, Batch& batch);
  void add_expert(const Block& block, int64_t step, Batch& batch);
  int64_t rows_at_once(const Batch& batch) const;
  // The input of the linear behind a step of gate and up, or of up alone.
  void activate(Backend& backend, const Step& step, ConstMatrixView x, MatrixView y, int64_t room = 0) const;
  int64_t activated_width(const Step& step) const;
  Matrix activate(const Block& block, int64_t step, ConstMatrixView input, const Batch& batch);
  void add_to_residual(const Block& block, StepKind step, Part post_norm, ConstMatrixView input, Batch& batch);
  void add_branch(const Block& block, Part post_norm, ConstMatrixView y, MatrixView residual) const;
  const RopeMatrices& rope_for(const Batch& batch, int64_t rope, Backend& backend);
  const RopeMatrices& rope_for(int64_t length, int64_t rope, Backend& backend);
  const Affine& final_norm();
  const Matrix& head();

  const Checkpoint& checkpoint_;
  Backend& backend_;
  Backend* head_backend_ = &backend_;
  DType dtype_;
  WeightReader reader_;
  ModelConfig config_;
  int64_t sequences_at_once_ = INT64_MAX;
  Affine final_norm_;
  Matrix head_, head_bias_;  // the head stays in the checkpoint's dtype
  // Of the last batch's length, or of the longest so far where the length does not matter; by backend and rope.
  std::map<std::pair<const Backend*, int64_t>, RopeMatrices> ropes_;
};

// How many elements of a dense float matrix on the host are NaN or infinite.
int64_t count_nonfinite(ConstMatrixView values);
// Throws InputError, naming the tensor, where `count` is not 0.
void refuse_nonfinite(const Checkpoint& checkpoint, const StoredTensor& tensor, int64_t count);

}  // namespace gptq
