// Attention with linears for q, k and v, or one for all three.
#pragma once

#include <vector>

#include "model/batch.h"
#include "model/block.h"
#include "model/micro_batches.h"
#include "model/rope_tables.h"

namespace gptq {

class Attention {
 public:
  // Computes in `dtype`. References must outlive it.
  Attention(const ModelConfig& config, DType dtype, RopeTables& ropes, MicroBatches& micro_batches)
      : config_(config), dtype_(dtype), ropes_(ropes), micro_batches_(micro_batches) {}

  // The input [tokens, heads * head_dim] of attention_out, from that of attention_in in batch.input.
  Matrix attend(const Block& block, Batch& batch);

  // Where a block keeps its keys and values, normed and rotated, or finds an earlier block's; or empty.
  struct Kept {
    MatrixView keys, values;
  };

  // Some tokens of a batch, and what attention knows of their places.
  struct Tokens {
    SequenceOffsets offsets;
    RopeRows rope, query_rope;  // of queries and keys, and of queries alone
    Cache* cache = nullptr;     // as Batch has it
  };
  Tokens tokens_of(const Block& block, const Batch& batch, SequenceOffsets offsets) const;

  // Attention proper: norms, rope and softmax(q k') v of projected q and y [tokens, heads * head_dim], k and v
  // [tokens, kv_heads * head_dim]. Changes q, k and v.
  void attend_heads(const Block& block, const Tokens& tokens, int64_t head_dim, MatrixView q, MatrixView k,
                    MatrixView v, MatrixView y, Kept kept = {}) const;

 private:
  // q [rows, heads * head_dim], k and v [rows, kv_heads * head_dim], in matrices of their own or parts of one.
  struct Projected {
    std::vector<Matrix> owners;
    MatrixView q, k, v;
    Matrix gates;  // [rows, heads * head_dim], where queries come with them
  };
  Projected project(const Block& block, ConstMatrixView x, Kept kept) const;
  Matrix with_zeros(const Block& block, ConstMatrixView v) const;
  void without_zeros(const Block& block, ConstMatrixView wide, MatrixView y) const;
  void gate_heads(const Block& block, ConstMatrixView x, MatrixView heads) const;
  AttentionShape shape_of(const Block& block, int64_t head_dim) const;

  const ModelConfig& config_;
  const DType dtype_;
  RopeTables& ropes_;
  MicroBatches& micro_batches_;
};

}  // namespace gptq
