// A block and the states that pass it, step by step, on one device. With two streams also the original block, and the
// states of the unquantized model.
#pragma once

#include <functional>

#include "model/model.h"
#include "quant/observer.h"
#include "run/streams.h"

namespace gptq {

class BlockPass {
 public:
  // Loads the parts of the block; its steps are loaded later, each by load(). watched: streams that pass the block
  // too, and that no Hessian sees; or nullptr.
  BlockPass(Model& model, StagedBlock staged, Backend& backend, Streams streams, BlockObserver& observer,
            const Streams* watched = nullptr);

  const StepSpecs& specs() const { return specs_; }
  int64_t steps() const { return static_cast<int64_t>(specs_.size()); }
  bool is_last() const { return block_.index + 1 == model_.config().blocks; }
  bool has_originals() const { return streams_.originals != nullptr; }
  Backend& backend() const { return backend_; }
  BlockObserver& observer() const { return observer_; }

  std::vector<Linear>& linears(int64_t step) { return block_.steps[step].linears; }
  bool is_loaded(int64_t step) const { return !block_.steps[step].linears[0].weight.empty(); }
  // Loads the original weights of a step and frees them in host memory.
  void load(int64_t step);
  void drop(int64_t step);
  // Drops the steps that enter(step), or finish() if step is the number of steps, does not need.
  void drop_before(int64_t step);

  using Visit = std::function<void(BatchPair)>;
  void for_each(StateUse use, const Visit& visit) const { streams_.for_each(backend_, use, visit); }
  // For batches that are to enter `step`, or finish() if step is the number of steps: rebuilds inputs that are not
  // kept.
  void for_each_at(int64_t step, const Visit& visit);

  // As in Model, each stream through its own block.
  void enter(int64_t step, BatchPair pair);
  void finish(BatchPair pair);
  void forward(BatchPair pair);
  void visit_inputs(int64_t step, BatchPair pair, bool all_tokens, const VisitInputs& visit) const;
  // The watched streams enter a step, or pass the last one if step is the number of steps.
  void watch(int64_t step);

 private:
  bool keeps_original() const { return has_originals() || (watched_ != nullptr && watched_->originals != nullptr); }
  // Calls pass(block, batch) for the streams.
  template <typename Pass>
  void for_both(BatchPair pair, const Pass& pass);

  Model& model_;
  StagedBlock staged_;
  Backend& backend_;
  const Streams streams_;
  const Streams* watched_;
  BlockObserver& observer_;
  const StepSpecs specs_;
  Block block_;     // solved steps have dequantized weights
  Block original_;  // if some stream passes it; its later steps have the weights of steps that are not quantized yet
};

}  // namespace gptq
