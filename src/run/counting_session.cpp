#include "run/counting_session.h"

#include <algorithm>
#include <utility>

namespace gptq {

CountingSession::CountingSession(const Facts& facts, const RehearsalOptions& options)
    : Session(facts.placement), facts_(facts), options_(options), host_(nothing_, "cpu", limit_of("cpu")) {
  for (const std::string& name : facts.placement.devices) {
    Device& device = devices_[name];
    const DeviceTraits traits = traits_of(name);
    widens_ = widens_ || (traits.computes_on_host && !traits.is_host);
    Memory& source = traits.memory_is_the_hosts ? static_cast<Memory&>(host_) : nothing_;
    if (!traits.is_host) device.memory = std::make_unique<LimitedMemory>(source, name, limit_of(name));
    LimitedMemory& memory = traits.is_host ? host_ : *device.memory;
    const size_t max_held = traits.pool_counts ? options.max_held : 0;
    device.backend = std::make_unique<CountingBackend>(name, memory, max_held, facts.precision.computed,
                                                       facts.precision.residual, facts.precision.fuses_linears);
    device.workspace = Matrix(*device.backend, DType::u8, 1, facts.workspace_bytes);
  }
  model_ = std::make_unique<Model>(*facts.checkpoint, first(), facts.precision.computed);
  model_->output_head().compute_on(head());
  model_->set_sequences_at_once(options.sequences_at_once);
}

int64_t CountingSession::limit_of(const std::string& device) const {
  const auto found = options_.limits.find(device);
  return found == options_.limits.end() ? 0 : found->second;
}

std::future<StagedBlock> CountingSession::read(int64_t block) {
  std::promise<StagedBlock> promise;
  promise.set_value(model_->weights().blank_block(block, host_));
  return promise.get_future();
}

Batch CountingSession::embed(const std::vector<TokenSequence>& sequences, ThreadPool* /*pool*/) {
  std::vector<int64_t> offsets = {0};
  for (const TokenSequence& sequence : sequences)
    offsets.push_back(offsets.back() + static_cast<int64_t>(sequence.size()));
  return model_->embedding().blank_batch(std::move(offsets), first(), host_);
}

// States in a file take memory only for batches in transfer.
std::unique_ptr<StateStore> CountingSession::make_store(int64_t /*tokens*/) {
  const bool spills = options_.strategy.states == StatePlace::spill;
  auto store = std::make_unique<StateStore>(spills ? StatePlace::host : options_.strategy.states,
                                            spills ? static_cast<Memory&>(nothing_) : host_);
  if (!options_.strategy.keeps_inputs) store->drop_inputs();
  return store;
}

void CountingSession::prepare(int64_t longest) {
  for (auto& [name, device] : devices_) model_->prepare(longest, *device.backend);
}

std::vector<Trimmed> CountingSession::trim() {
  for (auto& [name, device] : devices_) device.backend->trim();
  return {};
}

void CountingSession::take_buffers(int64_t batch_tokens, bool two_streams) {
  const StateBytes bytes = state_bytes(facts_);
  const DType dtype = facts_.precision.computed;
  if (options_.strategy.states == StatePlace::spill)
    in_flight_ = Matrix(host_, DType::u8, (two_streams ? 6 : 3) * batch_tokens, bytes.both());
  if (widens_ && dtype != DType::f32) {
    widened_ = Matrix(host_, DType::f32, std::min<int64_t>(batch_tokens, 2048),
                      bytes.input / static_cast<int64_t>(size_of(dtype)));
  }
}

std::vector<Stop> CountingSession::one_of_each_kind() const {
  const std::vector<BlockKind>& kinds = facts_.config.kinds;
  const auto blocks = static_cast<int64_t>(kinds.size());
  const Architecture& row = *facts_.config.architecture;
  const auto is_special = [&](int64_t block) {
    return (row.first_unnormed && block == 0) || (!row.last_o_bias.empty() && block == blocks - 1);
  };
  std::vector<Stop> stops;
  for (const std::string& name : facts_.placement.devices) {
    const size_t first = stops.size();
    for (int64_t block = 0; block < blocks; ++block) {
      if (facts_.placement.block(block).computes_on != name) continue;
      const auto same = std::find_if(stops.begin() + static_cast<int64_t>(first), stops.end(), [&](const Stop& stop) {
        return have_same_steps(kinds[stop.block], kinds[block]) && is_special(stop.block) == is_special(block);
      });
      if (same == stops.end())
        stops.push_back({.block = block, .times = 1});
      else
        ++same->times;
    }
  }
  for (Stop& stop : stops) {
    if (blocks > 1) stop.ahead = stop.block == blocks - 1 ? 0 : blocks - 1;
  }
  return stops;
}

void CountingSession::add_calls(int64_t times, Rehearsal& result) {
  for (auto& [name, device] : devices_) {
    for (const auto& [stage, calls] : device.backend->take_calls()) {
      for (const auto& [call, count] : calls) result.calls[stage][call] += count * times;
    }
  }
}

void CountingSession::drop_calls() {
  for (auto& [name, device] : devices_) device.backend->take_calls();
}

void CountingSession::note_peaks(Rehearsal& result) {
  model_.reset();
  for (const auto& [name, device] : devices_) {
    int64_t& peak = result.peaks[name];
    peak = std::max(peak, device.backend->memory_use().peak);
  }
  result.peaks["cpu"] = std::max(result.peaks["cpu"], host_.peak_bytes());
}

}  // namespace gptq
