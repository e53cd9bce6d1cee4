// The gated delta rule in the place of attention: convolution, linear attention, gated norm.
#pragma once

#include <vector>

#include "model/batch.h"
#include "model/block.h"
#include "model/micro_batches.h"

namespace gptq {

class GatedDelta {
 public:
  // Computes in `dtype`. References must outlive it.
  GatedDelta(const ModelConfig& config, DType dtype, MicroBatches& micro_batches)
      : config_(config), dtype_(dtype), micro_batches_(micro_batches) {}

  // y [tokens, value_heads * value_dim], the input of mixer_out, from that of mixer_in in batch.input.
  void mix(const Block& block, const Batch& batch, MatrixView y);

 private:
  // Queries, keys and values side by side, and the gate of the results.
  struct Projected {
    Matrix mixed, z;
  };
  float norm_eps() const;
  Projected project(const Block& block, ConstMatrixView x) const;
  // The logarithms of decays, and beta, of `x`: [tokens, value_heads] f32.
  struct Gates {
    Matrix log_decay, beta;
  };
  Gates gates(const Block& block, ConstMatrixView x) const;
  // Linear attention of queries, keys and values, which the convolution has mixed.
  Matrix attend(const Block& block, ConstMatrixView mixed, const Gates& gates, SequenceOffsets offsets) const;

  const ModelConfig& config_;
  const DType dtype_;
  MicroBatches& micro_batches_;
};

}  // namespace gptq
