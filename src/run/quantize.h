// Quantizes a model: embeds the calibration, walks over the blocks, quantizes the head. A run does that on its devices,
// a rehearsal on devices that only count.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "gptq/gptq.h"
#include "run/block.h"
#include "run/held_back.h"
#include "run/walk.h"

namespace gptq {

class Quantization final : private ObservedVisitor {
 public:
  // References must outlive it.
  Quantization(Session& session, const Recipe& recipe, RunObserver& observer);

  // Embeds the calibration into the states of the first block, and batches for the final check, if any. Not called for
  // rounding, which has no states.
  void embed(const std::vector<std::vector<TokenSequence>>& batches, std::vector<std::vector<TokenSequence>> held_back,
             ThreadPool* pool);

  // Advances the states past blocks [first, last), which an earlier run has quantized. finished: a session over its
  // output.
  void replay(Session& finished, int64_t first, int64_t last, const WalkOptions& options);

  void walk(const std::vector<Stop>& stops, WalkOptions options);

  // Quantizes the output head; returns false if the recipe does not ask for that.
  bool head();

  // The sequences for the final check; null if there are none.
  HeldBack* held_back() { return held_back_ ? &*held_back_ : nullptr; }
  // The stores of the states, in a fixed order.
  std::vector<StateStore*> stores();
  int64_t state_bytes_moved();
  int64_t spill_bytes();
  // Frees the states; no other call may follow.
  void drop_states();

 private:
  void pass(StagedBlock staged, const Team& team) override;
  Streams streams() { return {*states_, originals_.get()}; }

  const Recipe& recipe_;
  std::unique_ptr<StateStore> states_, originals_;  // originals: of the unquantized model
  std::optional<HeldBack> held_back_;
};

}  // namespace gptq
