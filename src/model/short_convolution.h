// A gated short convolution (LFM2) in the place of attention.
#pragma once

#include "model/batch.h"
#include "model/block.h"
#include "model/micro_batches.h"

namespace gptq {

class GatedConvolution {
 public:
  // Computes in `dtype`. References must outlive it.
  GatedConvolution(const ModelConfig& config, DType dtype, MicroBatches& micro_batches)
      : config_(config), dtype_(dtype), micro_batches_(micro_batches) {}

  // y [tokens, hidden], the input of mixer_out, from that of mixer_in in batch.input: c * convolution(b * x) where
  // mixer_in makes b, c and x.
  void mix(const Block& block, const Batch& batch, MatrixView y);

 private:
  const ModelConfig& config_;
  const DType dtype_;
  MicroBatches& micro_batches_;
};

}  // namespace gptq
