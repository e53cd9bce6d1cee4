// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values, and maybe queries, are expanded from
// latents of lower rank.
#pragma once

#include "model/attention.h"

namespace gptq {

class LatentAttention {
 public:
  // Computes in `dtype`. References must outlive it.
  LatentAttention(const ModelConfig& config, DType dtype, const Attention& attention, MicroBatches& micro_batches)
      : config_(config), dtype_(dtype), attention_(attention), micro_batches_(micro_batches) {}

  // From the input of latent_in in batch.input: queries (or their latents), the latents of keys and values, and the
  // part of keys that all heads share, side by side.
  Matrix latents(const Block& block, const Batch& batch);
  // The input [tokens, heads * value_dim] of attention_out, from the latents in batch.input.
  Matrix attend(const Block& block, const Batch& batch);

  // The columns of latents() that a step reads: latent_query or latent_key_value.
  ConstMatrixView input(StepKind step, ConstMatrixView latents) const;

 private:
  const ModelConfig& config_;
  const DType dtype_;
  const Attention& attention_;
  MicroBatches& micro_batches_;
};

}  // namespace gptq
