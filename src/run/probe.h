// Measures the effect of fewer bits in one step on the model's predictions, for each step of each block, in one walk.
//
// A probe is a part of the calibration that passes a model in which only one step is quantized. It starts at that
// step's block, passes the unquantized blocks after it, and ends as KL(model || probe). The loss of a layer does not
// tell that: errors of q, k and v weigh ten times as much as errors of equal size elsewhere. There is a probe for each
// of the two smallest widths; the cost of larger ones is extrapolated with the step's own loss.
#pragma once

#include <memory>
#include <vector>

#include "quant/bit_choice.h"
#include "run/walk.h"

namespace gptq {

class BitMeasurement final : private ObservedVisitor {
 public:
  // widths: the candidate bits, ascending. batches: calibration for Hessians; the first one is also for probes.
  // References must outlive it.
  BitMeasurement(Session& session, const Recipe& recipe, std::vector<int> widths,
                 std::vector<std::vector<TokenSequence>> batches, RunObserver& observer, ThreadPool* pool);

  // Adds `count` probes as if they had passed the first blocks, to rehearse a later one.
  void add_probes(int64_t count);
  void walk(const std::vector<Stop>& stops, WalkOptions options);
  // After the last block: the steps without a rule in the recipe, in the model's order, and their losses.
  std::vector<ProbedStep> read();

 private:
  void pass(StagedBlock staged, const Team& team) override;
  void probe_step(Block& block, int64_t step, const std::vector<LinearSpec>& linears, Hessian& hessian,
                  const Batch& start, Backend& backend);
  std::vector<double> divergences(Backend& head);  // per probe, summed over its tokens
  void estimate_losses(const std::vector<double>& divergences);

  Model& model_;
  const Recipe& recipe_;
  const std::vector<int> widths_;
  const std::vector<std::vector<TokenSequence>> batches_;
  std::unique_ptr<StateStore> states_, probes_;
  std::vector<ProbedStep> steps_;  // before read() a candidate's loss is the step's own error
};

// Total multiply-adds that it reports to the observer.
double probing_work(const ModelConfig& config, const Recipe& recipe, const std::vector<int>& widths, int64_t tokens,
                    int64_t probe_tokens);

}  // namespace gptq
