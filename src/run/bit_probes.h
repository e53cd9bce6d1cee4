// What fewer bits in one step do to the model's predictions, measured for each step of each block in one pass through
// the model.
//
// A probe is some of the calibration on its way through a model in which one step is quantized and nothing else. It
// starts at that step's block, goes through the unquantized blocks behind it, and ends as KL(model || probe). A layer's
// own loss does not say that: errors of q, k and v weigh ten times as much as errors of equal size elsewhere. There is
// a probe for each of the two least widths; what more bits would cost follows from how the step's own loss falls.
#pragma once

#include <string>
#include <vector>

#include "data/state_store.h"
#include "model/model.h"
#include "quant/bit_choice.h"
#include "run/block_quantizer.h"

namespace gptq {

class BitProbes {
 public:
  // widths: the bits up for choice, rising. `states`: the calibration's batches, the first of which is the probes';
  // `probes`: empty. Both are as many blocks further with every pass_block().
  BitProbes(Model& model, const Recipe& recipe, std::vector<int> widths, StateStore& states, StateStore& probes);

  void pass_block(const StagedBlock& staged, Backend& backend, BlockObserver& observer);
  // After the last block: what the probes give, on the backend of the model's head.
  void read_probes(Backend& head, BlockObserver& observer);

  struct Step {
    std::vector<std::string> linears;
    BitUnit unit;  // a candidate a width
  };
  // In the model's order: the steps that no rule of the recipe decides. Their losses are in nats per token once
  // read_probes() is done.
  const std::vector<Step>& steps() const { return steps_; }

 private:
  void probe_step(Block& block, int64_t step, const std::vector<LinearSpec>& linears, Hessian& hessian,
                  const Batch& start, Backend& backend, BlockObserver& observer);

  Model& model_;
  const Recipe& recipe_;
  const std::vector<int> widths_;
  StateStore& states_;
  StateStore& probes_;
  std::vector<Step> steps_;
};

// How many of the widths up for choice have a probe: the least ones, 8 bits excepted, which change next to nothing.
int64_t probed_widths(const std::vector<int>& widths);

inline constexpr const char* kProbeStage = "probes";
inline constexpr const char* kMeasureStage = "measuring bits";

// The linears of a step whose bits are up for choice: no rule of the recipe names them.
std::vector<LinearSpec> free_linears(const Recipe& recipe, const std::vector<LinearSpec>& step);

// Multiply-adds that all of it tells the observer of.
double probing_work(const ModelConfig& config, const Recipe& recipe, const std::vector<int>& widths, int64_t tokens,
                    int64_t probe_tokens);

}  // namespace gptq
