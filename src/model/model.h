// A checkpoint as a network: runs batches through the steps of its blocks.
#pragma once

#include "io/checkpoint.h"
#include "model/attention.h"
#include "model/batch.h"
#include "model/block.h"
#include "model/delta_rule.h"
#include "model/embedding.h"
#include "model/latent_attention.h"
#include "model/micro_batches.h"
#include "model/mixture_of_experts.h"
#include "model/mlp.h"
#include "model/output_head.h"
#include "model/residual_stream.h"
#include "model/rope_tables.h"
#include "model/short_convolution.h"
#include "model/state_space_mixer.h"
#include "model/weights.h"

namespace gptq {

// A block computes on the backend it was loaded to, the output head on the constructor's until told otherwise.
class Model {
 public:
  // Validates that every tensor of every block exists with the shape that config.json implies, except weights that
  // `reader` provides. Without a reader, reads plain float weights. Like transformers, ignores tensors that config.json
  // does not imply: a head despite tied embeddings, a bias despite attention_bias = false.
  Model(const Checkpoint& checkpoint, Backend& backend, DType dtype, WeightReader reader = nullptr,
        ModelUse use = ModelUse::batches);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const { return config_; }
  DType dtype() const { return dtype_; }

  // Where blocks, the states before the first one, and logits come from.
  const Weights& weights() const { return weights_; }
  const Embedding& embedding() const { return embedding_; }
  OutputHead& output_head() { return output_head_; }
  // On the constructor's backend.
  Block load_block(int64_t index) const { return weights_.load_block(weights_.stage_block(index), backend_); }
  Batch embed(std::span<const std::vector<int32_t>> sequences) const { return embedding_.embed(sequences, backend_); }

  // Makes the rope tables of a backend for sequences of up to `longest` tokens in advance; otherwise they are made when
  // first needed.
  void prepare(int64_t longest, Backend& backend) { ropes_.prepare(longest, backend); }
  void drop_ropes() { ropes_.drop(); }
  // As in MicroBatches.
  int64_t sequences_at_once() const { return micro_batches_.sequences_at_once(); }
  void set_sequences_at_once(int64_t count) { micro_batches_.set_sequences_at_once(count); }

  // Applies the linears of the previous step (none for step 0) and all other ops up to the input of `step`.
  void enter(const Block& block, int64_t step, Batch& batch);
  // The input [tokens, in_features] of a step that the batch has entered; not of an expert's step.
  ConstMatrixView input(const Block& block, int64_t step, const Batch& batch) const;
  // Calls visit(x, y) with the inputs of a step that `batch` has entered, in pieces: x [rows, in_features], and y, the
  // inputs of the same tokens in `original`, empty if null. For an expert's step visits its tokens, or with
  // `all_tokens` all.
  void visit_inputs(const Block& block, int64_t step, const Batch& batch, OriginalBatch original, bool all_tokens,
                    const VisitInputs& visit) const;
  // Recomputes the input that enter(step), or finish() if step is the number of steps, starts from, bit for bit, from
  // the residual: for states whose inputs are not kept. The steps from first_needed() on must be loaded.
  void rebuild_input(const Block& block, int64_t step, Batch& batch);
  // Applies the last step and adds its output to the residual; leaves batch.input empty.
  void finish(const Block& block, Batch& batch);
  // The block's whole forward pass.
  void forward(const Block& block, Batch& batch);

 private:
  Matrix mix(const Block& block, Batch& batch);
  void recur(const Block& block, const Batch& batch, MatrixView y);
  void recur_over(const Block& block, const Batch& batch, MatrixView y);
  void begin_mlp(const Block& block, Batch& batch);

  Backend& backend_;
  const DType dtype_;
  const WeightReader reader_;
  const ModelConfig config_;
  Weights weights_;
  Embedding embedding_;
  OutputHead output_head_;
  RopeTables ropes_;
  MicroBatches micro_batches_;
  ResidualStream residual_;
  Attention attention_;
  LatentAttention latent_attention_;
  GatedConvolution convolution_;
  StateSpaceMixer state_space_;
  GatedDelta delta_rule_;
  Mlp mlp_;
  MixtureOfExperts experts_;
};

}  // namespace gptq
