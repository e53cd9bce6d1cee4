// Tokens to the hidden states before the first block: token embedding, learned positions, norm.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/parallel.h"
#include "io/checkpoint.h"
#include "model/batch.h"
#include "model/block.h"

namespace gptq {

class TensorReader;

// Reads the tables' rows on demand, and keeps none.
class Embedding {
 public:
  // References must outlive it.
  Embedding(const Checkpoint& checkpoint, const ModelConfig& config, DType dtype)
      : checkpoint_(checkpoint), config_(config), dtype_(dtype) {}

  // Embeds the tokens of all sequences, reading only their rows of the table, on the threads of the pool if one is
  // given. Throws InputError for an id outside the vocabulary, and for more tokens than learned positions. If rope
  // depends on the length, the sequences of a batch must have equal length. With a cache, the tokens are the next ones
  // of its sequence.
  Batch embed(std::span<const std::vector<int32_t>> sequences, Backend& backend, ThreadPool* pool = nullptr,
              Cache* cache = nullptr) const;
  // The same without reading, for runs that only count: its values are undefined.
  Batch blank_batch(std::vector<int64_t> offsets, Backend& backend, Memory& host) const;

 private:
  struct HostRows {
    std::vector<int64_t> offsets;
    Matrix tokens, positions;  // [tokens, hidden], [longest sequence, hidden] in the stored dtype
    Matrix per_block;          // [tokens, blocks * width]
  };

  Matrix read_positions(int64_t first, int64_t count, Memory& memory) const;
  Matrix sinusoids(int64_t first, int64_t count, Memory& memory) const;
  Batch embedded(HostRows rows, Backend& backend, const TensorReader& tensors) const;
  const StoredTensor& per_block_table() const;
  Matrix scaled(Backend& backend, ConstMatrixView x, float factor) const;
  void add_per_block(Backend& backend, ConstMatrixView x, ConstMatrixView rows, const TensorReader& tensors,
                     Batch& batch) const;
  void add_positions(Backend& backend, ConstMatrixView rows, Batch& batch) const;

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const DType dtype_;
};

}  // namespace gptq
