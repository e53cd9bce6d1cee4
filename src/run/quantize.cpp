#include "run/quantize.h"

#include <algorithm>
#include <utility>

#include "data/batches.h"
#include "quant/targets.h"
#include "recipe/rules.h"
#include "run/replay.h"

namespace gptq {

Quantization::Quantization(Session& session, const Recipe& recipe, RunObserver& observer)
    : ObservedVisitor(session, observer), recipe_(recipe), states_(std::make_unique<StateStore>(StatePlace::device)) {}

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
  const auto add_all = [&] {
    for (const auto& sequences : batches) {
      Batch batch = session_.embed(sequences, pool);
      if (originals_ != nullptr)
        originals_->add({.offsets = batch.offsets, .residual = copy_of(backend, batch.residual)}, backend);
      states_->add(std::move(batch), backend);
    }
    backend.wait();
  };
  as_unit(session_.placement().embedding(), -1, backend, [&] { in_stage(observer_, kEmbeddingStage, add_all); });
  session_.prepare(static_cast<int64_t>(longest));
  observer_.trimmed("first block's inputs captured", session_.trim());
}

void Quantization::replay(Session& finished, int64_t first, int64_t last, const WalkOptions& options) {
  const std::vector<Stop> stops = blocks_between(first, last);
  if (originals_ != nullptr) Replay(session_, *originals_, observer_).walk(stops, options);
  Replay(finished, *states_, observer_).walk(stops, options);
}

void Quantization::walk(const std::vector<Stop>& stops, WalkOptions options) {
  Walk(session_, std::move(options)).over(stops, *this);
}

void Quantization::pass(StagedBlock staged, const Team& team) {
  quantize_block(session_.model(), recipe_, std::move(staged), team, streams(), observer_);
}

bool Quantization::head() {
  Model& model = session_.model();
  const auto recipe = recipe_for_head(recipe_, head_spec(model.config()).name);
  if (!recipe) return false;
  const Placement::Unit& unit = session_.placement().head();
  session_.trim_staging();
  session_.open_head();
  as_unit(unit, model.config().blocks - 1, session_.head(),
          [&] { quantize_head(model, *recipe, session_.head(), streams(), observer_); });
  observer_.trimmed(unit.module, session_.trim());
  return true;
}

std::vector<StateStore*> Quantization::stores() const {
  if (originals_ == nullptr) return {states_.get()};
  return {states_.get(), originals_.get()};
}

int64_t Quantization::state_bytes_moved() const {
  int64_t bytes = 0;
  for (const StateStore* store : stores()) bytes += store->bytes_moved();
  return bytes;
}

int64_t Quantization::spill_bytes() const {
  int64_t bytes = 0;
  for (const StateStore* store : stores()) bytes += store->spill_bytes();
  return bytes;
}

void Quantization::drop_states() {
  states_.reset();
  originals_.reset();
}

}  // namespace gptq
