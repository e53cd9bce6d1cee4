// Several sequences on their way through the blocks, and which of their states a step reads and writes.
#pragma once

#include <cstdint>
#include <vector>

#include "model/specs.h"
#include "tensor/matrix.h"

namespace gptq {

// Which tokens of a batch pass each expert of a block.
struct Routing {
  std::vector<std::vector<int32_t>> rows;   // of each expert, rising
  std::vector<std::vector<float>> weights;  // beside them
  std::vector<float> shared;                // of each token's shared expert; empty: 1
};

// Several sequences on their way through the blocks.
struct Batch {
  std::vector<int64_t> offsets;  // sequence s is rows [offsets[s], offsets[s + 1])
  Matrix residual;               // [tokens, hidden] between blocks
  Matrix input;                  // [tokens, in_features] of the current step, or empty
  // In a block with experts `input` is [tokens, 2 hidden]: what all of them read, and the sum of what they gave.
  Routing routing;
  // Inputs are rebuilt: where both branches of a block read one residual, nothing is added before finish().
  bool is_rebuilt = false;
  int64_t tokens() const { return offsets.empty() ? 0 : offsets.back(); }
};

// What one step of a block's way does to a batch, so that states which wait elsewhere move no more than they must.
struct StateUse {
  bool reads_residual = true, reads_input = true, writes_residual = true;
};
// Of enter(step), or of finish() where step is the number of steps: with a kept input, or after rebuild_input(step).
StateUse state_use(const ModelConfig& config, const StepSpecs& steps, int64_t step, bool keeps_inputs);
// Whether inputs may be dropped and rebuilt: not with experts.
bool can_rebuild_inputs(const ModelConfig& config);
// Elements of the widest input of a token that waits between steps.
int64_t widest_input(const ModelConfig& config);
// The first step whose weights these need.
int64_t first_needed(const ModelConfig& config, const StepSpecs& steps, int64_t step, bool keeps_inputs);

}  // namespace gptq
