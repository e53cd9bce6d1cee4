// Quantizes one block: each token passes each linear once, and each step's Hessian sees the outputs of the quantized
// steps before it. Knows neither files nor device names, so a plan can run it on devices that only count.
#pragma once

#include "gptq/gptq.h"
#include "model/model.h"
#include "quant/observer.h"
#include "run/streams.h"
#include "run/team.h"

namespace gptq {

// Quantizes the block on the team and advances the states past it (past the last block only if the output head is
// quantized), the originals past the original block. Frees the staged weights step by step. watched: as in BlockPass;
// always advanced.
void quantize_block(Model& model, const Recipe& recipe, StagedBlock staged, const Team& team, Streams streams,
                    const Streams* watched, BlockObserver& observer);

// Quantizes the output head after the last block; recipe_for_head() has its recipe.
void quantize_head(Model& model, const ResolvedRecipe& recipe, Backend& backend, Streams streams,
                   BlockObserver& observer);

}  // namespace gptq
