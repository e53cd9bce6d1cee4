// Advances the states of a calibration past blocks that are finished, without quantizing anything: past those that an
// earlier run quantized, from their codes, or past original ones.
#pragma once

#include <vector>

#include "run/states.h"
#include "run/walk.h"

namespace gptq {

class Replay final : private ObservedVisitor {
 public:
  // session: over the model whose blocks the states pass, those of `second` too unless it is null. References must
  // outlive it.
  Replay(Session& session, StateStore& states, StateStore* second, RunObserver& observer)
      : ObservedVisitor(session, observer), states_(states), second_(second) {}
  void walk(const std::vector<Stop>& stops, WalkOptions options);

 private:
  void pass(StagedBlock staged, const Team& team) override;

  StateStore& states_;
  StateStore* second_;
};

// Multiply-adds of a replay past the first `blocks` blocks.
double replay_work(const ModelConfig& config, int64_t blocks, int64_t tokens);

}  // namespace gptq
