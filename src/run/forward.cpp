#include "run/forward.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "format/format.h"
#include "model/tensor_checks.h"

namespace gptq {

OpenModel::OpenModel(const std::string& folder, const Evaluation& options, const Resources& resources, Devices& devices,
                     std::vector<Notice>& notices, ModelUse use)
    : checkpoint_(folder), resources_(resources) {
  const Json& quantization = checkpoint_.quantization_config();
  if (!quantization.is_null() && !reads_codes(quantization) && checkpoint_.can_dequantize()) dequantize(checkpoint_);
  const ModelConfig config = parse_model_config(checkpoint_);
  tell_and_refuse(checkpoint_, config, options.ignore_config_keys, notices);
  refuse_headless(checkpoint_, config);
  placement_ = placement_for_running(checkpoint_, config, options.device_map, resources, notices);
  const Precision chosen =
      precision_of(stored_dtype(checkpoint_, config), options.precision, devices[placement_.head().computes_on]);
  notices.push_back({Level::message, message_of(chosen)});
  const bool quantized = !checkpoint_.quantization_config().is_null();
  session_.emplace(checkpoint_, placement_, devices, chosen.computed,
                   quantized ? quantized_reader(checkpoint_, use) : WeightReader{}, StateOptions{}, use);
  walk_.emplace(*session_, WalkOptions{.trims = false, .at_boundary = {}, .stop = options.stop});
}

std::unique_ptr<StateStore> OpenModel::forward(const std::vector<std::vector<TokenSequence>>& batches, bool keep,
                                               const Boundary& at_boundary) {
  auto states = session_->make_store(0);
  for (const auto& batch : batches) states->add(session_->embed(batch, nullptr), session_->first());
  pass(*states, keep, at_boundary);
  return states;
}

std::unique_ptr<StateStore> OpenModel::forward(const TokenSequence& tokens, Cache& cache) {
  auto states = session_->make_store(0);
  Backend& first = session_->first();
  states->add(model().embedding().embed(std::span(&tokens, 1), first, nullptr, &cache), first);
  pass(*states, true, {});
  cache.tokens += static_cast<int64_t>(tokens.size());
  return states;
}

void OpenModel::pass(StateStore& states, bool keep, const Boundary& at_boundary) {
  states_ = &states;
  keep_ = keep;
  at_boundary_ = at_boundary;
  walk_->over(keep ? every_block_in_rounds(blocks()) : every_block(blocks()), *this);
}

void OpenModel::visit(const Stop& stop, const Take& take, const Team& team) {
  const Placement::Unit& unit = placement_.block(stop.block);
  std::optional<Block> passing;
  const Block* block = nullptr;
  if (const auto found = staying_.find(stop.block); found != staying_.end()) {
    block = &found->second;
  } else {
    const auto kept = on_host_.find(stop.block);
    const bool is_kept = kept != on_host_.end();
    StagedBlock taken = is_kept ? StagedBlock() : take();
    StagedBlock& staged = is_kept ? kept->second : taken;
    passing = model().weights().load_block(staged, team.lead());
    block = &*passing;
    if (!is_kept && keep_ && unit.visits && has_room("cpu", unit.bytes)) {
      on_host_.emplace(stop.block, std::move(taken));
    } else if (keep_ && unit.stays == unit.computes_on && has_room(unit.stays, unit.bytes)) {
      block = &staying_.emplace(stop.block, std::move(*passing)).first->second;
      passing.reset();
    }
  }
  states_->for_each(team.lead(), {}, [&](Batch& batch) { model().forward(*block, batch); });
}

// Kept weights may take half of a device's memory; widened weights take twice their stored size.
bool OpenModel::has_room(const std::string& device, int64_t bytes) {
  int64_t& used = staying_bytes_[device];
  const int64_t limit = resources_.limit_of(device);
  if (limit > 0 && used + 2 * bytes > limit / 2) return false;
  used += 2 * bytes;
  return true;
}

}  // namespace gptq
