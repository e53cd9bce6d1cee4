// State-space mixers: Mamba and Mamba-2, in the place of attention or beside it.
#pragma once

#include "model/batch.h"
#include "model/block.h"
#include "model/micro_batches.h"

namespace gptq {

class StateSpaceMixer {
 public:
  // Computes in `dtype`. References must outlive it.
  StateSpaceMixer(const ModelConfig& config, DType dtype, MicroBatches& micro_batches)
      : config_(config), dtype_(dtype), micro_batches_(micro_batches) {}

  // The input [tokens, width] of mixer_out, from the input of `in`, the first linear of the mixer, in batch.input.
  void mix(const Block& block, const Linear& in, const Batch& batch, MatrixView y);

 private:
  void mix_dual(const Block& block, ConstMatrixView projected, SequenceOffsets offsets, MatrixView y) const;
  void mix_scan(const Block& block, ConstMatrixView projected, SequenceOffsets offsets, MatrixView y) const;
  // silu(convolution(x)) over the tokens of each sequence.
  Matrix convolve(const Block& block, ConstMatrixView x, SequenceOffsets offsets) const;
  void gate(const Block& block, ConstMatrixView mixed, ConstMatrixView gate, MatrixView y) const;

  const ModelConfig& config_;
  const DType dtype_;
  MicroBatches& micro_batches_;
};

}  // namespace gptq
