#include "run/replay.h"

#include <optional>
#include <utility>

#include "model/work.h"
#include "run/sweeps.h"

namespace gptq {

void Replay::walk(const std::vector<Stop>& stops, WalkOptions options) {
  Walk(session_, std::move(options)).over(stops, *this);
}

void Replay::pass(StagedBlock staged, const Team& team) {
  std::optional<Streams> second;
  if (second_ != nullptr) second.emplace(Streams{*second_});
  BlockPass block(session_.model(), std::move(staged), team.lead(), {states_}, observer_, second ? &*second : nullptr);
  sweep_forward(block);
}

double replay_work(const ModelConfig& config, int64_t blocks, int64_t tokens) {
  double work = 0;
  for (int64_t block = 0; block < blocks; ++block) work += forward_work(step_specs(config, block), tokens);
  return work;
}

}  // namespace gptq
