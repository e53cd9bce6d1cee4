// A checkpoint as a network: loads blocks, and runs batches through their steps.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/parallel.h"
#include "io/checkpoint.h"
#include "model/batch.h"
#include "model/block.h"

namespace gptq {

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

}  // namespace gptq
