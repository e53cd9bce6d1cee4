// The hidden states of several sequences between steps, and which of them a step reads and writes.
#pragma once

#include <cstdint>
#include <vector>

#include "model/cache.h"
#include "model/specs.h"
#include "tensor/matrix.h"

namespace gptq {

// The tokens of a batch that pass each expert of a block.
struct Routing {
  std::vector<std::vector<int32_t>> rows;   // per expert, ascending
  std::vector<std::vector<float>> weights;  // of these rows
  std::vector<float> shared;                // weight of the shared expert, per token; empty: 1
};

struct Batch {
  std::vector<int64_t> offsets;  // sequence s is rows [offsets[s], offsets[s + 1])
  Matrix residual;               // [tokens, state_width] between blocks
  Matrix input;                  // [tokens, in_features] of the current step, or empty
  // In a block with experts `input` is [tokens, 2 hidden]: their input, and the sum of their outputs so far; twice that
  // where they are beside the MLP.
  Routing routing;
  // Whether inputs are rebuilt: then a parallel block adds nothing to the residual before finish().
  bool is_rebuilt = false;
  // Where the batch is the next tokens of one sequence: what is kept of those before them. They are added to it.
  Cache* cache = nullptr;
  // The hidden states in the residual, which may have more columns (ModelConfig::state_width).
  MatrixView hidden(int64_t width) { return residual.view().col_range(0, width); }
  ConstMatrixView hidden(int64_t width) const { return residual.view().col_range(0, width); }
  int64_t tokens() const { return offsets.empty() ? 0 : offsets.back(); }
  // The place of the first token of each sequence.
  int64_t first_position() const { return cache == nullptr ? 0 : cache->tokens; }
};

// Which states of a batch a step reads and writes, so that a store moves only those.
struct StateUse {
  bool reads_residual = true, reads_input = true, writes_residual = true;
};
// For enter(step), or finish() if step is the number of steps; with kept inputs, or after rebuild_input(step).
StateUse state_use(const ModelConfig& config, const StepSpecs& steps, int64_t step, bool keeps_inputs);
// Whether inputs may be dropped and rebuilt; false with experts.
bool can_rebuild_inputs(const ModelConfig& config);
// Elements of the widest input that a token has between steps.
int64_t widest_input(const ModelConfig& config);
// The first step whose weights enter(step), or rebuild_input(step) without kept inputs, needs.
int64_t first_needed(const ModelConfig& config, const StepSpecs& steps, int64_t step, bool keeps_inputs);

}  // namespace gptq
