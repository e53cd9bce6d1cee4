// The weights of a checkpoint's blocks: staged in host memory, then placed on a backend.
#pragma once

#include "io/checkpoint.h"
#include "model/block.h"

namespace gptq {

class TensorReader;

// Reads weights block by block, on demand.
class Weights {
 public:
  // Without a reader, reads plain float weights, which are placed in `dtype`. References must outlive it.
  Weights(const Checkpoint& checkpoint, const ModelConfig& config, DType dtype, const WeightReader& reader,
          ModelUse use)
      : checkpoint_(checkpoint), config_(config), dtype_(dtype), reader_(reader), use_(use) {}

  // Reads one block into host memory. Thread-safe. Throws InputError if a weight has NaN or infinity, with the tensor
  // and their number.
  StagedBlock stage_block(int64_t index, Memory& memory = host_memory()) const;
  // The same without reading, for runs that only count: its values are undefined.
  StagedBlock blank_block(int64_t index, Memory& memory) const;

  // Loads a block to a backend: all of it; or its parts first and then step by step, freeing each in host memory.
  Block load_block(const StagedBlock& staged, Backend& backend) const;
  Block begin_block(const StagedBlock& staged, Backend& backend) const;
  void load_step(StagedBlock& staged, Block& block, int64_t step) const;
  // Frees the weights of a step.
  static void drop_step(Block& block, int64_t step);

 private:
  StagedBlock stage(int64_t index, const TensorReader& tensors, bool use_reader) const;
  Linear place(const StagedBlock::StagedLinear& staged, Backend& backend) const;

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const DType dtype_;
  const WeightReader& reader_;
  const ModelUse use_;
};

}  // namespace gptq
