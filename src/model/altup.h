// Alternating updates (AltUp, arXiv 2301.13310): several residuals in parallel, of which a block computes with the
// first. It predicts all of them from all of them, and corrects them by what it made of the first.
#pragma once

#include <vector>

#include "model/batch.h"
#include "model/block.h"

namespace gptq {

class TensorReader;

// The projections to or from the other residuals, one each.
std::vector<PartSpec> altup_projections(const ModelConfig& config, std::string_view list);

class AltUp {
 public:
  // References must outlive it.
  explicit AltUp(const ModelConfig& config) : config_(config) {}

  // What the block reads: the prediction of the first residual [tokens, hidden], in its dtype.
  Matrix predicted(const Block& block, const Batch& batch) const;
  // Replaces all residuals by their predictions, and keeps that of the first for the correction.
  void predict(const Block& block, Batch& batch) const;
  // Corrects the predictions, the first of which the block has changed.
  void correct(const Block& block, Batch& batch) const;
  // The residuals that the block does not compute with.
  std::vector<MatrixView> others(Batch& batch) const;

  // Makes the other residuals of an embedding: projections of its rows, with their root mean squares.
  void embed(Backend& backend, const std::vector<Affine>& projections, Batch& batch) const;
  // The mean [tokens, hidden] of the first residual of these states, and of projections of the others, with its root
  // mean squares.
  Matrix joined(Backend& backend, const std::vector<Affine>& projections, ConstMatrixView states) const;

 private:
  int64_t count() const { return config_.residuals; }
  int64_t place(int64_t residual) const;
  ConstMatrixView residual(const Batch& batch, int64_t index) const {
    return batch.residual.view().col_range(place(index), config_.hidden);
  }
  MatrixView residual(Batch& batch, int64_t index) const {
    return batch.residual.view().col_range(place(index), config_.hidden);
  }
  std::vector<float> coefficients(const Block& block, Part part, ConstMatrixView x) const;
  Matrix prediction(const Block& block, const std::vector<float>& coefficients, const Batch& batch,
                    int64_t index) const;

  const ModelConfig& config_;
};

}  // namespace gptq
