// Quantizing one block: each token through each linear once, each step's Hessian from the already quantized steps
// before it. It knows neither files nor devices by name, so a plan can run it on devices that only count.
#pragma once

#include <string>
#include <vector>

#include "data/state_store.h"
#include "gptq/gptq.h"
#include "model/block.h"
#include "quant/hessian.h"
#include "quant/solver.h"

namespace gptq {

inline constexpr const char* kCalibrationStage = "calibration";  // its tokens and their embedding
inline constexpr const char* kLoadStage = "load";                // weights to the device
inline constexpr const char* kMovingStage = "moving states";     // that wait elsewhere

// What a run does around the arithmetic. Functions are called on the thread that quantizes.
class BlockObserver {
 public:
  virtual ~BlockObserver() = default;
  // What follows, until end_stage(), is the work of this stage: "forward", "Hessian", ...; stages do not nest.
  virtual void begin_stage(const char* stage) = 0;
  virtual void end_stage() = 0;
  virtual void begin_step(const std::vector<LinearSpec>& step) = 0;
  // A batch has passed the step, or the step's linears are solved. May throw, to end the run.
  virtual void swept(const std::vector<LinearSpec>& step, int64_t tokens) = 0;
  virtual void solved_step(const std::vector<LinearSpec>& step, int64_t dropped_rows) = 0;
  // So many multiply-adds are done besides. May throw, to end the run.
  virtual void worked(double multiply_adds) = 0;
  // A linear has its codes; `hessian` is nullptr where rounding needs none.
  virtual void solved(const LinearSpec& linear, const Quantized& quantized, const FactoredHessian* hessian,
                      Backend& backend) = 0;
};

// One stage's work, told to the observer.
template <typename Body>
auto in_stage(BlockObserver& observer, const char* stage, Body body) {
  struct Scope {
    BlockObserver& observer;
    ~Scope() { observer.end_stage(); }
  };
  observer.begin_stage(stage);
  const Scope scope{observer};
  return body();
}

// Whether the recipe wants a second stream of states, those of the unquantized model.
bool wants_original_states(const Recipe& recipe);

// Quantizes the block on `backend`, and brings the states behind it (behind the last block only for an
// output head that is to be quantized), those of the original model behind the original block. The staged block's
// weights leave host memory step by step. originals: nullptr where the recipe wants none; else as many batches as
// `states`.
void quantize_block(Model& model, const Recipe& recipe, StagedBlock staged, Backend& backend, StateStore& states,
                    StateStore* originals, BlockObserver& observer);

// Quantizes the output head where the states are those behind the last block; recipe_for_head() has its recipe.
void quantize_head(Model& model, const ResolvedRecipe& recipe, Backend& backend, StateStore& states,
                   StateStore* originals, BlockObserver& observer);

}  // namespace gptq
