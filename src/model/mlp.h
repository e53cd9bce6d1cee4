// The MLP between its linears: gate and up projection, activation.
#pragma once

#include "model/batch.h"
#include "model/block.h"
#include "model/micro_batches.h"

namespace gptq {

class Mlp {
 public:
  // Computes in `dtype`. References must outlive it.
  Mlp(const ModelConfig& config, DType dtype, MicroBatches& micro_batches)
      : config_(config), dtype_(dtype), micro_batches_(micro_batches) {}

  // The activation [tokens, intermediate] after mlp_in, from its input in batch.input.
  Matrix activate(const Block& block, int64_t step, const Batch& batch);
  // The activation [x.rows, intermediate] after a step of gate and up, or of up alone, in a matrix of `room` rows.
  // Temporaries have room for as many.
  Matrix activate_rows(Backend& backend, const Step& step, ConstMatrixView x, int64_t room) const;

 private:
  int64_t width(const Step& step) const;
  void activate_sparsely(Backend& backend, const Step& step, double sparsity, ConstMatrixView x, MatrixView y) const;
  void activate(Backend& backend, const Step& step, ConstMatrixView x, MatrixView y, int64_t room) const;

  const ModelConfig& config_;
  const DType dtype_;
  MicroBatches& micro_batches_;
};

}  // namespace gptq
