// The residual that a block's branches read through a norm, and add their outputs to.
#pragma once

#include "model/altup.h"
#include "model/batch.h"
#include "model/block.h"
#include "model/micro_batches.h"

namespace gptq {

class ResidualStream {
 public:
  // Branches compute in `dtype`. References must outlive it.
  ResidualStream(const ModelConfig& config, DType dtype, MicroBatches& micro_batches)
      : config_(config), dtype_(dtype), micro_batches_(micro_batches), altup_(config) {}

  // The branches' inputs [tokens, hidden]: the residual after their norm, or unchanged if the block does not have it.
  Matrix mixer_input(const Block& block, const Batch& batch) const;
  Matrix mlp_input(const Block& block, const Batch& batch) const;

  // The columns of a mixer's output that a step reads: all, or attention's or those of the state space beside it.
  ConstMatrixView input_of(const Block& block, StepKind step, ConstMatrixView mixed) const;
  // Add the branches' outputs: of the last linear for its input [tokens, in_features], or of experts [tokens, hidden].
  void add_mixer(const Block& block, ConstMatrixView input, Batch& batch);
  void add_mlp(const Block& block, ConstMatrixView input, Batch& batch);
  void add_experts(const Block& block, ConstMatrixView output, Batch& batch) const;
  // What a block does to the residual after both: the correction of AltUp, Gemma's embeddings per block, and its
  // factor.
  void end_block(const Block& block, Batch& batch) const;

 private:
  void add_per_block(const Block& block, Batch& batch) const;
  Matrix normed(const Block& block, Part norm, ConstMatrixView x) const;
  Matrix laurel(const Block& block, const Batch& batch) const;
  void add_linear(const Block& block, StepKind step, Part post_norm, ConstMatrixView input, float scale, Batch& batch);
  void add(const Block& block, Part post_norm, ConstMatrixView y, float scale, MatrixView residual) const;

  const ModelConfig& config_;
  const DType dtype_;
  MicroBatches& micro_batches_;
  const AltUp altup_;
};

}  // namespace gptq
