// Quantizing a model: its calibration embedded, a walk over its blocks, its head. A run does that on its devices, a
// rehearsal on devices that only count.
#pragma once

#include <memory>
#include <vector>

#include "gptq/gptq.h"
#include "run/block.h"
#include "run/walk.h"

namespace gptq {

class Quantization final : private Visitor {
 public:
  // All references must outlive it.
  Quantization(Session& session, const Recipe& recipe, RunObserver& observer);

  // Brings the calibration into the states before the first block. Without it, for rounding, there are none.
  void embed(const std::vector<std::vector<TokenSequence>>& batches, ThreadPool* pool);

  void walk(const std::vector<Stop>& stops, WalkOptions options);

  // The output head, where the recipe quantizes it; false where it does not.
  bool head();

  int64_t state_bytes_moved() const;
  int64_t spill_bytes() const;
  // Gives the states' memory back; nothing may follow.
  void drop_states();

 private:
  void visit(const Stop& stop, const Take& take, const Team& team) override;
  void boundary(const Stop& stop, const Team& team, const std::vector<Trimmed>& trimmed) override;
  Streams streams() { return {*states_, originals_.get()}; }

  Session& session_;
  const Recipe& recipe_;
  RunObserver& observer_;
  std::unique_ptr<StateStore> states_, originals_;  // originals: of the unquantized model, where the recipe wants them
};

}  // namespace gptq
