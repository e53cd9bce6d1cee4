#include "run/quantize.h"

#include <algorithm>
#include <utility>

#include "data/batches.h"
#include "quant/targets.h"
#include "recipe/rules.h"

namespace gptq {

Quantization::Quantization(Session& session, const Recipe& recipe, RunObserver& observer)
    : session_(session),
      recipe_(recipe),
      observer_(observer),
      states_(std::make_unique<StateStore>(StatePlace::device)) {}

void Quantization::embed(const std::vector<std::vector<TokenSequence>>& batches, ThreadPool* pool) {
  int64_t tokens = 0;
  size_t longest = 0;
  for (const auto& sequences : batches) {
    tokens += count_tokens(sequences);
    longest = std::max(longest, sequences[0].size());
  }
  states_ = session_.make_store(tokens);
  if (wants_original_states(recipe_)) originals_ = session_.make_store(tokens);
  Backend& backend = session_.first();
  observer_.begin_unit(session_.placement().embedding(), -1, backend);
  in_stage(observer_, kEmbeddingStage, [&] {
    for (const auto& sequences : batches) {
      Batch batch = session_.embed(sequences, pool);
      if (originals_ != nullptr) {
        Batch original{.offsets = batch.offsets,
                       .residual = Matrix(backend, batch.residual.dtype(), batch.tokens(), batch.residual.cols())};
        backend.run(ops::Convert{.x = batch.residual, .y = original.residual});
        originals_->add(std::move(original), backend);
      }
      states_->add(std::move(batch), backend);
    }
    backend.wait();
  });
  observer_.end_unit(session_.model().sequences_at_once());
  session_.prepare(static_cast<int64_t>(longest));
  observer_.trimmed("first block's inputs captured", session_.trim());
}

void Quantization::walk(const std::vector<Stop>& stops, WalkOptions options) {
  Walk(session_, std::move(options)).over(stops, *this);
}

void Quantization::visit(const Stop& stop, const Take& take, const Team& team) {
  observer_.begin_unit(session_.placement().block(stop.block), stop.block, team.lead());
  StagedBlock staged = in_stage(observer_, kReadStage, take);
  quantize_block(session_.model(), recipe_, std::move(staged), team, streams(), observer_);
  observer_.end_unit(session_.model().sequences_at_once());
}

void Quantization::boundary(const Stop& stop, const Team& /*team*/, const std::vector<Trimmed>& trimmed) {
  observer_.trimmed(session_.placement().block(stop.block).module, trimmed);
}

bool Quantization::head() {
  Model& model = session_.model();
  const auto recipe = recipe_for_head(recipe_, head_spec(model.config()).name);
  if (!recipe) return false;
  const Placement::Unit& unit = session_.placement().head();
  session_.trim_staging();
  session_.open_head();
  observer_.begin_unit(unit, model.config().blocks - 1, session_.head());
  quantize_head(model, *recipe, session_.head(), streams(), observer_);
  observer_.end_unit(model.sequences_at_once());
  observer_.trimmed(unit.module, session_.trim());
  return true;
}

int64_t Quantization::state_bytes_moved() const {
  return states_->bytes_moved() + (originals_ != nullptr ? originals_->bytes_moved() : 0);
}

int64_t Quantization::spill_bytes() const {
  return states_->spill_bytes() + (originals_ != nullptr ? originals_->spill_bytes() : 0);
}

void Quantization::drop_states() {
  states_.reset();
  originals_.reset();
}

}  // namespace gptq
