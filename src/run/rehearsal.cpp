#include "run/rehearsal.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <utility>

#include "quant/format.h"
#include "run/block_quantizer.h"

namespace gptq {
namespace {

// Takes of the host's memory and the device what the run's observer would, and tells the device which stage it is at.
class CountingObserver final : public BlockObserver {
 public:
  CountingObserver(CountingBackend& backend, const Setup& setup, Memory& host)
      : backend_(backend), setup_(setup), host_(host), writes_behind_(gptq::writes_behind(setup)) {}
  void begin_stage(const char* stage) override { backend_.set_stage(stage); }
  void end_stage() override {}
  void begin_step(const std::vector<LinearSpec>& /*step*/) override {}
  void swept(const std::vector<LinearSpec>& /*step*/, int64_t /*tokens*/) override {}
  void solved_step(const std::vector<LinearSpec>& /*step*/, int64_t /*dropped_rows*/) override {}
  void solved(const LinearSpec& linear, const Quantized& quantized, const FactoredHessian* /*hessian*/,
              Backend& /*backend*/) override {
    backend_.set_stage("pack and write");
    if (writes_.size() == writes_behind_) writes_.pop_front();
    FetchedLinear fetched = fetch(backend_, quantized, host_);
    writes_.push_back(
        {std::move(fetched),
         Matrix(host_, DType::u8, 1, packing_bytes(linear, setup_.quantized.at(linear.name + ".weight").recipe))});
  }

 private:
  // A linear that is packed and written while the next ones are solved.
  struct Write {
    FetchedLinear fetched;
    Matrix packed;
  };

  CountingBackend& backend_;
  const Setup& setup_;
  Memory& host_;
  const size_t writes_behind_;
  std::deque<Write> writes_;
};

}  // namespace

Rehearsal rehearse(const Job& job, const Setup& setup, const RehearsalOptions& options) {
  const auto limit_of = [&](const std::string& device) {
    const auto found = options.limits.find(device);
    return found == options.limits.end() ? int64_t{0} : found->second;
  };
  const Checkpoint& checkpoint = *setup.checkpoint;
  const DType dtype = setup.precision.computed;
  NoMemory nothing;
  LimitedMemory host(nothing, "cpu", limit_of("cpu"));

  // A simulated accelerator's memory is the host's.
  struct Device {
    std::unique_ptr<LimitedMemory> memory;
    std::unique_ptr<CountingBackend> backend;
    Matrix workspace;
  };
  std::map<std::string, Device> devices;
  bool simulated = false;
  for (const std::string& name : setup.placement.devices) {
    Device& device = devices[name];
    simulated = simulated || name.starts_with("sim");
    Memory& source = name.starts_with("sim") ? static_cast<Memory&>(host) : nothing;
    if (name != "cpu") device.memory = std::make_unique<LimitedMemory>(source, name, limit_of(name));
    LimitedMemory& memory = name == "cpu" ? host : *device.memory;
    // What a GPU's pool holds is the driver's, and does not count as taken.
    const size_t max_held = name.starts_with("cuda") ? 0 : options.max_held;
    device.backend = std::make_unique<CountingBackend>(name, memory, max_held, dtype);
    device.workspace = Matrix(*device.backend, DType::u8, 1, setup.workspace_bytes);
  }
  const auto backend_of = [&](const Placement::Unit& unit) -> CountingBackend& {
    return *devices.at(unit.computes_on).backend;
  };

  Rehearsal result;
  const StateBytes bytes = state_bytes(setup);
  const int64_t blocks = setup.config.blocks;
  {
    Model model(checkpoint, backend_of(setup.placement.units[0]), dtype);
    model.set_sequences_at_once(options.sequences_at_once);
    // In a file states take no memory but for the batches that are read ahead and written behind.
    const bool spills = options.states == StatePlace::spill, two_streams = wants_original_states(job.recipe);
    const auto make_store = [&] {
      auto store = std::make_unique<StateStore>(spills ? StatePlace::host : options.states,
                                                spills ? static_cast<Memory&>(nothing) : host);
      if (!options.keeps_inputs) store->drop_inputs();
      return store;
    };
    const std::unique_ptr<StateStore> states = make_store(), originals = two_streams ? make_store() : nullptr;
    int64_t batch_tokens = 0;
    if (job.recipe.method == Method::gptq) {
      const std::vector<TokenSequence> sequences(static_cast<size_t>(setup.calibration.samples),
                                                 TokenSequence(static_cast<size_t>(setup.calibration.sequence_length)));
      CountingBackend& backend = backend_of(setup.placement.units[0]);
      for (const auto& batch_sequences : make_batches(sequences, job.batch_size, setup.batch_tokens)) {
        Batch batch{.offsets = {0}};
        for (const TokenSequence& sequence : batch_sequences)
          batch.offsets.push_back(batch.tokens() + static_cast<int64_t>(sequence.size()));
        Matrix rows(host, setup.precision.stored, batch.tokens(), setup.config.hidden);
        batch.residual = to_device(backend, setup.precision.stored, batch.tokens(), setup.config.hidden, nullptr);
        if (dtype != setup.precision.stored) {
          Matrix converted(backend, dtype, batch.tokens(), setup.config.hidden);
          batch.residual = std::move(converted);
        }
        batch_tokens = std::max(batch_tokens, batch.tokens());
        result.tokens += batch.tokens();
        result.sequences += static_cast<int64_t>(batch_sequences.size());
        if (two_streams) {
          Batch original{batch.offsets, Matrix(backend, dtype, batch.tokens(), setup.config.hidden), {}};
          originals->add(std::move(original), backend);
        }
        states->add(std::move(batch), backend);
      }
    }
    for (auto& [name, device] : devices) device.backend->trim();
    Matrix in_flight, widened;
    if (spills) in_flight = Matrix(host, DType::u8, (two_streams ? 6 : 3) * batch_tokens, bytes.both());
    // The CPU behind a simulated accelerator widens what it sums.
    if (simulated && dtype != DType::f32)
      widened = Matrix(host, DType::f32, std::min<int64_t>(batch_tokens, 2048),
                       bytes.input / static_cast<int64_t>(size_of(dtype)));

    // One block on each device shows all: the first there, with the next one read ahead.
    StagedBlock next = model.blank_block(0, host);
    for (const std::string& name : setup.placement.devices) {
      int64_t first = -1, count = 0;
      for (int64_t index = 0; index < blocks; ++index) {
        if (setup.placement.block(index).computes_on != name) continue;
        if (first < 0) first = index;
        ++count;
      }
      if (first < 0) continue;
      CountingBackend& backend = *devices.at(name).backend;
      StagedBlock staged = next.steps.empty() ? model.blank_block(first, host) : std::move(next);
      next = {};
      if (options.read_ahead && blocks > 1) next = model.blank_block(first == 0 ? 1 : 0, host);
      CountingObserver observer(backend, setup, host);
      quantize_block(model, job.recipe, std::move(staged), backend, *states, originals.get(), observer);
      backend.trim();
      result.sequences_at_once = model.sequences_at_once();
      for (const auto& [stage, calls] : backend.calls()) {
        for (const auto& [call, times] : calls) result.calls[stage][call] += times * count;
      }
    }
  }
  for (const auto& [name, device] : devices) result.peaks[name] = device.backend->memory_use().peak;
  result.peaks["cpu"] = host.peak_bytes();
  return result;
}

}  // namespace gptq
