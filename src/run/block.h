// Quantizing one block: each token through each linear once, each step's Hessian from the already quantized steps
// before it. It knows neither files nor devices by name, so a plan can run it on devices that only count.
#pragma once

#include "gptq/gptq.h"
#include "model/model.h"
#include "quant/observer.h"
#include "run/states.h"
#include "run/team.h"

namespace gptq {

// The calibration's states on their way through the model. originals: those of the unquantized model, with as many
// batches; nullptr where the recipe wants none.
struct Streams {
  StateStore& states;
  StateStore* originals = nullptr;
};

// Quantizes the block on the team, and brings the states past it (past the last block only for an output head that is
// to be quantized), the originals past the original block. The staged block's weights leave host memory step by step.
void quantize_block(Model& model, const Recipe& recipe, StagedBlock staged, const Team& team, Streams streams,
                    BlockObserver& observer);

// Quantizes the output head after the last block; recipe_for_head() has its recipe.
void quantize_head(Model& model, const ResolvedRecipe& recipe, Backend& backend, Streams streams,
                   BlockObserver& observer);

}  // namespace gptq
