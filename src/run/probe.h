// Measures what fewer bits in one step do to the model's predictions, for each step of each block, in one walk through
// the model.
//
// A probe is a part of the calibration on its way through a model in which one step is quantized and nothing else. It
// starts at that step's block, passes the unquantized blocks after it, and ends as KL(model || probe). A layer's own
// loss does not say that: errors of q, k and v weigh ten times as much as errors of equal size elsewhere. There is a
// probe for each of the two least widths; what more bits would cost follows from how the step's own loss falls.
#pragma once

#include <memory>
#include <vector>

#include "quant/bit_choice.h"
#include "run/walk.h"

namespace gptq {

class BitMeasurement final : private Visitor {
 public:
  // widths: the bits up for choice, rising. batches: the calibration to measure with; the first is the probes'.
  // References must outlive it.
  BitMeasurement(Session& session, const Recipe& recipe, std::vector<int> widths,
                 std::vector<std::vector<TokenSequence>> batches, RunObserver& observer, ThreadPool* pool);

  // Adds this many probes that have passed the first blocks already, for a rehearsal of a later one.
  void add_probes(int64_t count);
  void walk(const std::vector<Stop>& stops, WalkOptions options);
  // After the last block: the steps that no rule of the recipe decides, in the model's order, and their losses.
  std::vector<ProbedStep> read();

 private:
  void visit(const Stop& stop, const Take& take, const Team& team) override;
  void boundary(const Stop& stop, const Team& team, const std::vector<Trimmed>& trimmed) override;
  void pass_block(const StagedBlock& staged, Backend& backend);
  void probe_step(Block& block, int64_t step, const std::vector<LinearSpec>& linears, Hessian& hessian,
                  const Batch& start, Backend& backend);
  std::vector<double> divergences(Backend& head);  // of each probe, summed over its tokens
  void estimate_losses(const std::vector<double>& divergences);

  Session& session_;
  Model& model_;
  const Recipe& recipe_;
  const std::vector<int> widths_;
  const std::vector<std::vector<TokenSequence>> batches_;
  RunObserver& observer_;
  std::unique_ptr<StateStore> states_, probes_;
  std::vector<ProbedStep> steps_;  // until read(), a candidate's loss is the step's own error
};

// Multiply-adds that all of it tells the observer of.
double probing_work(const ModelConfig& config, const Recipe& recipe, const std::vector<int>& widths, int64_t tokens,
                    int64_t probe_tokens);

}  // namespace gptq
