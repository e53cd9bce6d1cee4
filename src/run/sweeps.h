// The ways to sweep over a block: each decides when weights are loaded, and when states pass which steps.
#pragma once

#include "run/block_pass.h"
#include "run/step_solver.h"

namespace gptq {

// One pass: a step's Hessian sees the outputs of the quantized steps before it. A step's weights are loaded from its
// solution until its outputs are computed, or until they are no longer needed to rebuild inputs.
// advances: whether the states are needed after the block.
void sweep_sequentially(BlockPass& pass, const StepSolver& solver, bool advances);

// Without true_sequential: one pass through the unquantized block for all Hessians (another one for experts with too
// few tokens), then one through the quantized block.
void sweep_at_once(BlockPass& pass, const StepSolver& solver, bool advances);

// Quantizes nothing: the states pass the block as they would pass it after one of the sweeps above, if its weights are
// the dequantized ones.
void sweep_forward(BlockPass& pass);

// Without calibration: no states pass the block.
void sweep_rounding(BlockPass& pass, const StepSolver& solver);

}  // namespace gptq
