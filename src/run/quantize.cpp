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

void Quantization::embed(const std::vector<std::vector<TokenSequence>>& batches,
                         std::vector<std::vector<TokenSequence>> held_back, ThreadPool* pool) {
  int64_t tokens = 0;
  size_t longest = 0;
  for (const auto& sequences : batches) {
    tokens += count_tokens(sequences);
    longest = std::max(longest, sequences[0].size());
  }
  if (tokens > 0) states_ = session_.make_store(tokens);
  if (tokens > 0 && wants_original_states(recipe_)) originals_ = session_.make_store(tokens);
  Backend& backend = session_.first();
  const auto add_all = [&] {
    for (const auto& sequences : batches) {
      Batch batch = session_.embed(sequences, pool);
      if (originals_ != nullptr)
        originals_->add({.offsets = batch.offsets, .residual = copy_of(backend, batch.residual)}, backend);
      states_->add(std::move(batch), backend);
    }
    if (!held_back.empty()) held_back_.emplace(session_, std::move(held_back), pool);
    backend.wait();
  };
  as_unit(session_.placement().embedding(), -1, backend, [&] { in_stage(observer_, kEmbeddingStage, add_all); });
  session_.prepare(static_cast<int64_t>(longest));
  observer_.trimmed("first block's inputs captured", session_.trim());
}

void Quantization::replay(Session& finished, int64_t first, int64_t last, const WalkOptions& options) {
  const std::vector<Stop> stops = blocks_between(first, last);
  if (originals_ != nullptr || held_back_) {
    StateStore* held_back = held_back_ ? &held_back_->originals() : nullptr;
    StateStore& originals = originals_ != nullptr ? *originals_ : *held_back;
    Replay(session_, originals, originals_ != nullptr ? held_back : nullptr, observer_).walk(stops, options);
  }
  Replay(finished, *states_, held_back_ ? &held_back_->quantized() : nullptr, observer_).walk(stops, options);
}

void Quantization::walk(const std::vector<Stop>& stops, WalkOptions options) {
  Walk(session_, std::move(options)).over(stops, *this);
}

void Quantization::pass(StagedBlock staged, const Team& team) {
  std::optional<Streams> watched;
  if (held_back_) watched.emplace(held_back_->streams());
  quantize_block(session_.model(), recipe_, std::move(staged), team, streams(), watched ? &*watched : nullptr,
                 observer_);
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

std::vector<StateStore*> Quantization::stores() {
  std::vector<StateStore*> stores = {states_.get()};
  if (originals_ != nullptr) stores.push_back(originals_.get());
  if (held_back_) stores.insert(stores.end(), {&held_back_->quantized(), &held_back_->originals()});
  return stores;
}

int64_t Quantization::state_bytes_moved() {
  int64_t bytes = 0;
  for (const StateStore* store : stores()) bytes += store->bytes_moved();
  return bytes;
}

int64_t Quantization::spill_bytes() {
  int64_t bytes = 0;
  for (const StateStore* store : stores()) bytes += store->spill_bytes();
  return bytes;
}

void Quantization::drop_states() {
  states_.reset();
  originals_.reset();
  held_back_.reset();
}

}  // namespace gptq
