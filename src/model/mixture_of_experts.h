// A block's experts. Each one computes the rows of its tokens, a bounded number at a time, so that memory does not
// depend on routing balance. batch.input is [tokens, 2 hidden]: the experts' input, and the sum of their outputs.
#pragma once

#include <functional>
#include <span>

#include "model/batch.h"
#include "model/block.h"
#include "model/mlp.h"

namespace gptq {

// Sees inputs x [rows, in_features] of a step, and y, the inputs of the same tokens in the original block, or empty.
using VisitInputs = std::function<void(ConstMatrixView x, ConstMatrixView y)>;
// Another block, and its batch, which has entered the same step; or null.
struct OriginalBatch {
  const Block* block = nullptr;
  const Batch* batch = nullptr;
};

class MixtureOfExperts {
 public:
  // Computes in `dtype`. References must outlive it.
  MixtureOfExperts(const ModelConfig& config, DType dtype, const Mlp& mlp)
      : config_(config), dtype_(dtype), mlp_(mlp) {}

  // Routes the tokens of x [tokens, hidden], and makes batch.input with a sum of zero.
  void begin(const Block& block, Matrix x, Batch& batch) const;
  // Adds the output of the shared expert, or of another one, whose last step this is, to the sum.
  void add_shared(const Block& block, int64_t step, Batch& batch) const;
  void add_expert(const Block& block, int64_t step, Batch& batch) const;
  // The experts' input and the sum of their outputs, each [tokens, hidden].
  ConstMatrixView input(const Batch& batch) const { return batch.input.view().col_range(0, config_.hidden); }
  // The shared expert's input, which is another where the experts are beside the MLP; and the sum of all outputs, in
  // the sum's place.
  ConstMatrixView shared_input(const Batch& batch) const {
    return batch.input.view().col_range(is_beside() ? 2 * config_.hidden : 0, config_.hidden);
  }
  ConstMatrixView output(const Block& block, Batch& batch) const;

  // Calls visit(x, y) with the inputs of a step of an expert or of shared_out, in pieces; y is from `original`. Visits
  // an expert's own tokens, or with `all_tokens` all.
  void visit_inputs(const Block& block, int64_t step, const Batch& batch, OriginalBatch original, bool all_tokens,
                    const VisitInputs& visit) const;

 private:
  int64_t rows_at_once(const Batch& batch) const;
  bool is_beside() const { return !config_.expert_row.beside_norm.empty(); }
  Matrix normed(const Block& block, Part norm, ConstMatrixView x) const;
  MatrixView shared_sum(Batch& batch) const {
    return batch.input.view().col_range((is_beside() ? 3 : 1) * config_.hidden, config_.hidden);
  }
  MatrixView sum(Batch& batch) const { return batch.input.view().col_range(config_.hidden, config_.hidden); }
  Matrix expert_input(const Block& block, int64_t step, const Batch& batch, std::span<const int32_t> rows,
                      std::span<const float> weights) const;

  const ModelConfig& config_;
  const DType dtype_;
  const Mlp& mlp_;
};

}  // namespace gptq
