#include "run/block_pass.h"

#include <utility>

#include "model/work.h"

namespace gptq {
namespace {

Step copy_of(Backend& backend, const Step& from) {
  Step copy;
  for (const Linear& linear : from.linears)
    copy.linears.push_back({linear.name, copy_of(backend, linear.weight), copy_of(backend, linear.bias)});
  return copy;
}

// A block whose steps are not loaded yet.
Block copy_of(Backend& backend, const Block& from) {
  Block copy{.index = from.index, .backend = &backend, .kinds = from.kinds, .experts = from.experts};
  for (const Step& step : from.steps) copy.steps.push_back(copy_of(backend, step));
  for (size_t part = 0; part < kParts; ++part) {
    const auto& [weight, bias] = from.parts[part];
    copy.parts[part] = {copy_of(backend, weight), copy_of(backend, bias)};
  }
  copy.slopes = copy_of(backend, from.slopes);
  return copy;
}

}  // namespace

BlockPass::BlockPass(Model& model, StagedBlock staged, Backend& backend, Streams streams, BlockObserver& observer,
                     const Streams* watched)
    : model_(model),
      staged_(std::move(staged)),
      backend_(backend),
      streams_(streams),
      watched_(watched),
      observer_(observer),
      specs_(step_specs(model.config(), staged_.index)),
      block_(in_stage(observer, kLoadStage, [&] { return model.weights().begin_block(staged_, backend); })) {
  if (keeps_original()) original_ = in_stage(observer, kLoadStage, [&] { return copy_of(backend, block_); });
}

void BlockPass::load(int64_t step) {
  in_stage(observer_, kLoadStage, [&] {
    model_.weights().load_step(staged_, block_, step);
    if (keeps_original()) original_.steps[step] = copy_of(backend_, block_.steps[step]);
  });
}

void BlockPass::drop(int64_t step) {
  Weights::drop_step(block_, step);
  if (keeps_original()) Weights::drop_step(original_, step);
}

void BlockPass::drop_before(int64_t step) {
  const int64_t needed = first_needed(model_.config(), specs_, step, streams_.states.keeps_inputs());
  for (int64_t done = 0; done < needed; ++done) drop(done);
}

template <typename Pass>
void BlockPass::for_both(BatchPair pair, const Pass& pass) {
  in_stage(observer_, "forward", [&] { pass(block_, pair.batch); });
  if (pair.original != nullptr) in_stage(observer_, "original forward", [&] { pass(original_, *pair.original); });
}

void BlockPass::for_each_at(int64_t step, const Visit& visit) {
  const bool keeps_inputs = streams_.states.keeps_inputs();
  for_each(state_use(model_.config(), specs_, step, keeps_inputs), [&](BatchPair pair) {
    if (!keeps_inputs)
      for_both(pair, [&](const Block& block, Batch& batch) { model_.rebuild_input(block, step, batch); });
    visit(pair);
  });
}

void BlockPass::enter(int64_t step, BatchPair pair) {
  for_both(pair, [&](const Block& block, Batch& batch) { model_.enter(block, step, batch); });
}

void BlockPass::finish(BatchPair pair) {
  for_both(pair, [&](const Block& block, Batch& batch) { model_.finish(block, batch); });
}

void BlockPass::forward(BatchPair pair) {
  for_both(pair, [&](const Block& block, Batch& batch) { model_.forward(block, batch); });
}

void BlockPass::watch(int64_t step) {
  if (watched_ == nullptr) return;
  const auto pass = [&](const Block& block, Batch& batch) {
    step < steps() ? model_.enter(block, step, batch) : model_.finish(block, batch);
  };
  watched_->for_each(backend_, state_use(model_.config(), specs_, step, true), [&](BatchPair pair) {
    in_stage(observer_, kCheckStage, [&] {
      pass(block_, pair.batch);
      if (pair.original != nullptr) pass(original_, *pair.original);
    });
    observer_.worked(step < steps() ? watching_work(specs_[step], pair.batch.tokens()) : 0);
  });
}

void BlockPass::visit_inputs(int64_t step, BatchPair pair, bool all_tokens, const VisitInputs& visit) const {
  model_.visit_inputs(block_, step, pair.batch, {&original_, pair.original}, all_tokens, visit);
}

}  // namespace gptq
