// A checkpoint as a network: loads blocks and runs batches through their steps.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "io/checkpoint.h"
#include "model/batch.h"
#include "model/block.h"
#include "model/embedding.h"
#include "model/output_head.h"
#include "model/weights.h"

namespace gptq {

// Reads weights block by block, on demand. A block computes on the backend it was loaded to, everything else on the
// constructor's backend.
class Model {
 public:
  // Validates that every tensor of every block exists with the shape that config.json implies, except weights that
  // `reader` provides. Without a reader, reads plain float weights. Like transformers, ignores tensors that config.json
  // does not imply: a head despite tied embeddings, a bias despite attention_bias = false.
  Model(const Checkpoint& checkpoint, Backend& backend, DType dtype, WeightReader reader = nullptr);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const { return config_; }
  DType dtype() const { return dtype_; }

  const Weights& weights() const { return weights_; }
  const Embedding& embedding() const { return embedding_; }
  OutputHead& output_head() { return output_head_; }
  // On the constructor's backend.
  Block load_block(int64_t index) const { return weights_.load_block(weights_.stage_block(index), backend_); }
  Batch embed(std::span<const std::vector<int32_t>> sequences) const { return embedding_.embed(sequences, backend_); }

  // Makes the rope tables of a backend for sequences of up to `longest` tokens in advance; otherwise they are made when
  // first needed.
  void prepare(int64_t longest, Backend& backend);

  // Sequences of a batch that pass a step at once: all, until a device runs out of memory for a step's temporaries;
  // then half as many, down to one. Results do not depend on it.
  int64_t sequences_at_once() const { return sequences_at_once_; }
  void set_sequences_at_once(int64_t count) { sequences_at_once_ = count; }

  // Applies the linears of the previous step (none for step 0) and all other ops up to the input of `step`.
  void enter(const Block& block, int64_t step, Batch& batch);
  // The input [tokens, in_features] of a step that the batch has entered; not of an expert's step.
  ConstMatrixView input(const Block& block, int64_t step, const Batch& batch) const;
  // Calls visit(x, y) with the inputs of a step that `batch` has entered, in pieces: x [rows, in_features], and y, the
  // inputs of the same tokens in `original` (another block and its batch, which has entered the step), empty if null.
  // For an expert's step visits its tokens, or with `all_tokens` all.
  using VisitInputs = std::function<void(ConstMatrixView x, ConstMatrixView y)>;
  struct Original {
    const Block* block = nullptr;
    const Batch* batch = nullptr;
  };
  void visit_inputs(const Block& block, int64_t step, const Batch& batch, Original original, bool all_tokens,
                    const VisitInputs& visit) const;
  // Recomputes the input that enter(step), or finish() if step is the number of steps, starts from, bit for bit, from
  // the residual: for states whose inputs are not kept. The steps from first_needed() on must be loaded.
  void rebuild_input(const Block& block, int64_t step, Batch& batch);
  // Applies the last step and adds its output to the residual; leaves batch.input empty.
  void finish(const Block& block, Batch& batch);
  // The block's whole forward pass.
  void forward(const Block& block, Batch& batch);

 private:
  struct RopeMatrices {
    Matrix cos, sin;  // [positions, rotary_dim / 2] f32
  };

  // Calls body(rows of the batch, their offsets) for as many sequences at a time as memory allows. A body must allocate
  // before it changes anything, as it is called again for fewer sequences after OutOfMemory.
  template <typename Body>
  void in_passes(const Batch& batch, const Body& body);
  // The residual after a norm, or unchanged if the block does not have that norm.
  Matrix normed_residual(const Block& block, Part norm, const Batch& batch) const;
  Matrix mlp_input(const Block& block, const Batch& batch) const;
  Matrix attend(const Block& block, const Batch& batch);
  Matrix latents(const Block& block, const Batch& batch);
  Matrix attend_latents(const Block& block, const Batch& batch);
  void attend_heads(const Block& block, const RopeMatrices* rope, const RopeMatrices* query_rope,
                    SequenceOffsets offsets, int64_t head_dim, MatrixView q, MatrixView k, MatrixView v,
                    MatrixView y) const;
  void begin_experts(const Block& block, Batch& batch);
  // The input of an expert's step for some rows of a batch, in a matrix of rows_at_once() rows: all pieces take the
  // same.
  Matrix expert_input(const Block& block, int64_t step, const Batch& batch, std::span<const int32_t> rows,
                      std::span<const float> weights) const;
  // Adds the output of the shared expert, or of another one, whose last step this is.
  void add_shared(const Block& block, int64_t step, Batch& batch);
  void add_expert(const Block& block, int64_t step, Batch& batch);
  int64_t rows_at_once(const Batch& batch) const;
  // The activation after a step of gate and up, or of up alone.
  void activate(Backend& backend, const Step& step, ConstMatrixView x, MatrixView y, int64_t room = 0) const;
  int64_t activated_width(const Step& step) const;
  Matrix activate(const Block& block, int64_t step, ConstMatrixView input, const Batch& batch);
  void add_to_residual(const Block& block, StepKind step, Part post_norm, ConstMatrixView input, Batch& batch);
  void add_branch(const Block& block, Part post_norm, ConstMatrixView y, MatrixView residual) const;
  const RopeMatrices& rope_for(const Batch& batch, int64_t rope, Backend& backend);
  const RopeMatrices& rope_for(int64_t length, int64_t rope, Backend& backend);

  Backend& backend_;
  const DType dtype_;
  const WeightReader reader_;
  const ModelConfig config_;
  Weights weights_;
  Embedding embedding_;
  OutputHead output_head_;
  int64_t sequences_at_once_ = INT64_MAX;
  // By backend and rope; for the longest sequence so far, or for the last length if the table depends on it.
  std::map<std::pair<const Backend*, int64_t>, RopeMatrices> ropes_;
};

}  // namespace gptq
