// The final norm and the output head: hidden states to logits.
#pragma once

#include <vector>

#include "io/checkpoint.h"
#include "model/batch.h"
#include "model/block.h"

namespace gptq {

// Reads its weights when they are first needed; throws InputError if one has NaN or infinity.
class OutputHead {
 public:
  // On `backend`, until compute_on() names another one. References must outlive it.
  OutputHead(const Checkpoint& checkpoint, const ModelConfig& config, Backend& backend, DType dtype,
             const WeightReader& reader, ModelUse use)
      : checkpoint_(checkpoint), config_(config), backend_(&backend), dtype_(dtype), reader_(reader) {
    head_.is_for_texts = use == ModelUse::texts;
  }

  void compute_on(Backend& backend) { backend_ = &backend; }

  // The head's input, the final norm [tokens, hidden] of a batch on that backend.
  Matrix input(const Batch& batch);
  // The head's weight on that backend in the model's dtype; no copy is kept.
  Matrix take_weight();
  // Logits [count, vocabulary] f32 of rows [first, first + count) of a residual on that backend: final norm and head.
  Matrix logits(const Batch& batch, int64_t first, int64_t count);

  // Frees the final norm and the head.
  void drop() {
    norm_ = {};
    dense_ = {};
    head_norm_ = {};
    unembed_projections_.clear();
    head_.weight = Matrix();
    head_.packed = {};
    head_.bias = Matrix();
  }
  // Allocates them without reading, for runs that only count.
  void set_blank();

 private:
  // The norm of hidden states [tokens, state_width], or what the family's head makes of it before the logits.
  Matrix transformed(ConstMatrixView states);
  const std::vector<Affine>& unembed_projections();
  const Affine& norm();
  const Linear& head();

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  Backend* backend_;
  const DType dtype_;
  const WeightReader& reader_;
  Affine norm_, dense_, head_norm_;
  std::vector<Affine> unembed_projections_;
  Linear head_;  // the weight in the checkpoint's dtype
};

}  // namespace gptq
