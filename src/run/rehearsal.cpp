#include "run/rehearsal.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <utility>

#include "format/format.h"
#include "run/bit_probes.h"
#include "run/block_quantizer.h"
#include "run/mixed_bits.h"

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
  void worked(double /*multiply_adds*/) override {}
  void solved(const LinearSpec& linear, const Quantized& quantized, const FactoredHessian* /*hessian*/,
              Backend& /*backend*/) override {
    backend_.set_stage("pack and write");
    if (writes_.size() == writes_behind_) writes_.pop_front();
    FetchedLinear fetched = fetch(backend_, quantized.codes, quantized.grid(), quantized.g_idx, host_);
    writes_.push_back({std::move(fetched), Matrix(host_, DType::u8, 1,
                                                  setup_.format->encoding_bytes(
                                                      linear, setup_.quantized.at(linear.name + ".weight").recipe))});
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

// Blocks of the same kind on the same device.
int64_t blocks_like(const Setup& setup, int64_t block) {
  const auto is_like = [&](int64_t other) {
    return setup.placement.block(other).computes_on == setup.placement.block(block).computes_on &&
           setup.config.kinds[other].has_experts == setup.config.kinds[block].has_experts;
  };
  int64_t count = 0;
  for (int64_t index = 0; index < setup.config.blocks; ++index) count += is_like(index);
  return count;
}

// The run's memories, counted.
class CountingMachine {
 public:
  CountingMachine(const Setup& setup, const RehearsalOptions& options)
      : setup_(setup), options_(options), host_(nothing_, "cpu", limit_of("cpu")) {
    for (const std::string& name : setup.placement.devices) {
      Device& device = devices_[name];
      simulated_ = simulated_ || name.starts_with("sim");
      // A simulated accelerator's memory is the host's.
      Memory& source = name.starts_with("sim") ? static_cast<Memory&>(host_) : nothing_;
      if (name != "cpu") device.memory = std::make_unique<LimitedMemory>(source, name, limit_of(name));
      LimitedMemory& memory = name == "cpu" ? host_ : *device.memory;
      // What a GPU's pool holds is the driver's, and does not count as taken.
      const size_t max_held = name.starts_with("cuda") ? 0 : options.max_held;
      device.backend = std::make_unique<CountingBackend>(name, memory, max_held, setup.precision.computed,
                                                         setup.precision.residual, setup.precision.fuses_linears);
      device.workspace = Matrix(*device.backend, DType::u8, 1, setup.workspace_bytes);
    }
  }

  CountingBackend& backend(const std::string& device) { return *devices_.at(device).backend; }
  CountingBackend& first() { return backend(setup_.placement.units[0].computes_on); }

  CountingBackend& head() { return backend(setup_.placement.units.back().computes_on); }

  Memory& host() { return host_; }
  bool is_simulated() const { return simulated_; }

  // In a file states take no memory but for the batches that are read ahead and written behind.
  bool spills() const { return options_.states == StatePlace::spill; }
  std::unique_ptr<StateStore> make_store() {
    auto store = std::make_unique<StateStore>(spills() ? StatePlace::host : options_.states,
                                              spills() ? static_cast<Memory&>(nothing_) : host_);
    if (!options_.keeps_inputs) store->drop_inputs();
    return store;
  }

  void prepare(Model& model, int64_t longest) {
    for (auto& [name, device] : devices_) model.prepare(longest, *device.backend);
  }

  void trim() {
    for (auto& [name, device] : devices_) device.backend->trim();
  }

  // One block of each kind on each device shows all: the first there, with the next one read ahead. Calls visit(staged
  // block, its backend), and adds its calls as often as the device has blocks.
  template <typename Visit>
  void visit_blocks(Model& model, Rehearsal& result, const Visit& visit) {
    const std::vector<BlockKind>& kinds = setup_.config.kinds;
    const auto blocks = static_cast<int64_t>(kinds.size());
    StagedBlock next = model.blank_block(0, host_);
    for (const std::string& name : setup_.placement.devices) {
      for (const bool has_experts : {false, true}) {
        int64_t first = -1, count = 0;
        for (int64_t index = 0; index < blocks; ++index) {
          if (setup_.placement.block(index).computes_on != name || kinds[index].has_experts != has_experts) continue;
          if (first < 0) first = index;
          ++count;
        }
        if (first < 0) continue;
        StagedBlock staged =
            next.index == first && !next.steps.empty() ? std::move(next) : model.blank_block(first, host_);
        next = {};
        if (options_.read_ahead && blocks > 1) next = model.blank_block(first == blocks - 1 ? 0 : blocks - 1, host_);
        visit(std::move(staged), backend(name));
        backend(name).trim();
        add_calls(backend(name), count, result);
      }
    }
  }

  // What the device has been called for since the last time, so many times.
  static void add_calls(CountingBackend& backend, int64_t times, Rehearsal& result) {
    for (const auto& [stage, calls] : backend.take_calls()) {
      for (const auto& [call, count] : calls) result.calls[stage][call] += count * times;
    }
  }

  void note_peaks(Rehearsal& result) {
    for (const auto& [name, device] : devices_) {
      int64_t& peak = result.peaks[name];
      peak = std::max(peak, device.backend->memory_use().peak);
    }
    result.peaks["cpu"] = std::max(result.peaks["cpu"], host_.peak_bytes());
  }

 private:
  int64_t limit_of(const std::string& device) const {
    const auto found = options_.limits.find(device);
    return found == options_.limits.end() ? 0 : found->second;
  }

  struct Device {
    std::unique_ptr<LimitedMemory> memory;
    std::unique_ptr<CountingBackend> backend;
    Matrix workspace;
  };
  const Setup& setup_;
  const RehearsalOptions& options_;
  NoMemory nothing_;
  LimitedMemory host_;
  bool simulated_ = false;
  std::map<std::string, Device> devices_;
};

std::vector<std::vector<TokenSequence>> calibration_batches(const Job& job, const Setup& setup, bool measuring) {
  const std::vector<TokenSequence> sequences(static_cast<size_t>(setup.calibration.samples),
                                             TokenSequence(static_cast<size_t>(setup.calibration.sequence_length)));
  return measuring ? measuring_batches(sequences) : make_batches(sequences, job.batch_size, setup.batch_tokens);
}

std::vector<int64_t> offsets_of(const std::vector<TokenSequence>& sequences) {
  std::vector<int64_t> offsets = {0};
  for (const TokenSequence& sequence : sequences)
    offsets.push_back(offsets.back() + static_cast<int64_t>(sequence.size()));
  return offsets;
}

Rehearsal rehearse_quantizing(const Job& job, const Setup& setup, const RehearsalOptions& options) {
  CountingMachine machine(setup, options);
  const DType dtype = setup.precision.computed;
  Rehearsal result;
  const StateBytes bytes = state_bytes(setup);
  {
    Model model(*setup.checkpoint, machine.first(), dtype);
    model.set_sequences_at_once(options.sequences_at_once);
    machine.first().set_stage(kCalibrationStage);
    const bool two_streams = wants_original_states(job.recipe);
    const std::unique_ptr<StateStore> states = machine.make_store(),
                                      originals = two_streams ? machine.make_store() : nullptr;
    int64_t batch_tokens = 0;
    if (job.recipe.method == Method::gptq) {
      for (const auto& sequences : calibration_batches(job, setup, false)) {
        Batch batch = model.blank_batch(offsets_of(sequences), machine.first(), machine.host());
        batch_tokens = std::max(batch_tokens, batch.tokens());
        result.tokens += batch.tokens();
        result.sequences += static_cast<int64_t>(sequences.size());
        if (two_streams) {
          Batch original{
              .offsets = batch.offsets,
              .residual = Matrix(machine.first(), batch.residual.dtype(), batch.tokens(), batch.residual.cols())};
          originals->add(std::move(original), machine.first());
        }
        states->add(std::move(batch), machine.first());
      }
    }
    if (result.tokens > 0) machine.prepare(model, setup.calibration.sequence_length);
    machine.trim();
    Matrix in_flight, widened;
    if (machine.spills())
      in_flight = Matrix(machine.host(), DType::u8, (two_streams ? 6 : 3) * batch_tokens, bytes.both());
    // The CPU behind a simulated accelerator widens what it sums.
    if (machine.is_simulated() && dtype != DType::f32) {
      widened = Matrix(machine.host(), DType::f32, std::min<int64_t>(batch_tokens, 2048),
                       bytes.input / static_cast<int64_t>(size_of(dtype)));
    }
    machine.visit_blocks(model, result, [&](StagedBlock staged, CountingBackend& backend) {
      CountingObserver observer(backend, setup, machine.host());
      const auto moved = [&] { return states->bytes_moved() + (two_streams ? originals->bytes_moved() : 0); };
      const int64_t before = moved(), blocks = blocks_like(setup, staged.index);
      quantize_block(model, job.recipe, std::move(staged), backend, *states, originals.get(), observer);
      result.state_bytes_moved += (moved() - before) * blocks;
      result.sequences_at_once = model.sequences_at_once();
    });
    if (const auto recipe = recipe_for_head(job.recipe, head_spec(setup.config).name)) {
      CountingBackend& backend = machine.head();
      model.compute_head_on(backend);
      model.set_blank_head();
      CountingObserver observer(backend, setup, machine.host());
      quantize_head(model, *recipe, backend, *states, originals.get(), observer);
      CountingMachine::add_calls(backend, 1, result);
    }
  }
  machine.note_peaks(result);
  return result;
}

// Adds what choosing bits takes: its calls, and its peaks where they are higher.
void rehearse_measuring(const Job& job, const Setup& setup, const RehearsalOptions& options, Rehearsal& result) {
  CountingMachine machine(setup, options);
  Rehearsal measuring;
  {
    Model model(*setup.checkpoint, machine.first(), setup.precision.computed);
    model.set_sequences_at_once(options.sequences_at_once);
    machine.first().set_stage(kCalibrationStage);
    const std::unique_ptr<StateStore> states = machine.make_store(), probes = machine.make_store();
    const auto add = [&](StateStore& store, const std::vector<int64_t>& offsets) {
      store.add(model.blank_batch(offsets, machine.first(), machine.host()), machine.first());
    };
    const auto batches = calibration_batches(job, setup, true);
    for (const auto& sequences : batches) add(*states, offsets_of(sequences));
    // The probes of all blocks but one are there; a block adds its own. On average half of them are.
    const int64_t of_a_block = probed_widths(setup.widths) * static_cast<int64_t>(step_specs(setup.config, 0).size());
    for (int64_t i = of_a_block; i < of_a_block * setup.config.blocks; ++i) add(*probes, offsets_of(batches[0]));
    machine.prepare(model, setup.calibration.sequence_length);
    machine.trim();
    BitProbes run(model, job.recipe, setup.widths, *states, *probes);
    machine.visit_blocks(model, measuring, [&](const StagedBlock& staged, CountingBackend& backend) {
      CountingObserver observer(backend, setup, machine.host());
      run.pass_block(staged, backend, observer);
    });
    for (auto& [call, count] : measuring.calls[kProbeStage]) count /= 2;
    model.compute_head_on(machine.head());
    model.set_blank_head();
    CountingObserver observer(machine.head(), setup, machine.host());
    run.read_probes(machine.head(), observer);
    CountingMachine::add_calls(machine.head(), 1, measuring);
  }
  machine.note_peaks(result);
  for (const auto& [stage, calls] : measuring.calls) {
    for (const auto& [call, count] : calls) result.calls[stage][call] += count;
  }
}

// Where bits are to be chosen, the two widths around the average share the weights.
Rehearsal rehearse_average(const Job& job, const Setup& setup, const RehearsalOptions& options) {
  const double share = share_of_least(setup);
  const Rehearsal least = rehearse_quantizing(at_width(job, setup.widths[0]), setup, options);
  const Rehearsal next = rehearse_quantizing(at_width(job, setup.widths[1]), setup, options);
  const auto add = [&](const Rehearsal& part, double weight, Rehearsal& sum) {
    for (const auto& [stage, calls] : part.calls) {
      for (const auto& [call, count] : calls)
        sum.calls[stage][call] += std::llround(weight * static_cast<double>(count));
    }
  };
  Rehearsal both = next;
  both.calls.clear();
  add(least, share, both);
  add(next, 1 - share, both);
  for (auto& [device, peak] : both.peaks) peak = std::max(peak, least.peaks.at(device));
  both.state_bytes_moved = std::max(least.state_bytes_moved, next.state_bytes_moved);
  both.sequences_at_once = std::min(least.sequences_at_once, next.sequences_at_once);
  rehearse_measuring(job, setup, options, both);
  return both;
}

}  // namespace

Rehearsal rehearse(const Job& job, const Setup& setup, const RehearsalOptions& options) {
  return setup.widths.empty() ? rehearse_quantizing(job, setup, options) : rehearse_average(job, setup, options);
}

}  // namespace gptq
