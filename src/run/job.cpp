// plan() and quantize(): facts, a decision by rehearsals, then the run.
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/error.h"
#include "data/batches.h"
#include "model/work.h"
#include "plan/mixed_bits.h"
#include "quant/targets.h"
#include "recipe/recipe.h"
#include "recipe/rules.h"
#include "report/collect.h"
#include "run/output.h"
#include "run/probe.h"
#include "run/quantize.h"
#include "run/rehearse.h"

namespace gptq {
namespace {

LinearReport::Scales scales_of(const FetchedLinear& linear) {
  const Matrix& scales = linear.scales;
  std::vector<float> magnitudes(scales.row<float>(0), scales.row<float>(0) + scales.view().size());
  if (magnitudes.empty()) return {};
  const auto negative = std::count_if(magnitudes.begin(), magnitudes.end(), [](float scale) { return scale < 0; });
  for (float& scale : magnitudes) scale = std::abs(scale);
  const auto middle = magnitudes.begin() + static_cast<std::ptrdiff_t>(magnitudes.size() / 2);
  std::nth_element(magnitudes.begin(), middle, magnitudes.end());
  const auto [least, largest] = std::minmax_element(magnitudes.begin(), magnitudes.end());
  return {*least, *middle, *largest, static_cast<double>(negative) / static_cast<double>(magnitudes.size())};
}

// Multiply-adds of quantizing all linears of the layout.
double quantizing_work(const Recipe& recipe, const Facts& facts, const Layout& layout, int64_t tokens) {
  const bool two_streams = wants_original_states(recipe);
  const LinearSpec head = head_spec(facts.config);
  double work = 0;
  if (recipe.method == Method::gptq) {
    for (const auto& step : all_steps(facts.config)) work += sweep_work(step, tokens, two_streams);
    if (layout.is_quantized(head)) work += sweep_work({head}, tokens, two_streams);
  }
  for (const auto& [name, linear] : layout.quantized) work += solve_work(linear.spec);
  return work;
}

double probing_work(const Recipe& recipe, const Facts& facts, const std::vector<TokenSequence>& sequences) {
  int64_t tokens = 0;
  const auto batches = measuring_batches(sequences);
  for (const auto& batch : batches) tokens += count_tokens(batch);
  return probing_work(facts.config, recipe, facts.widths, tokens, count_tokens(batches[0]));
}

// A run from its facts to its report. Members are in the order of their creation.
class Run {
 public:
  Run(const Job& job, const Listener& listener) : job_(job), collector_(job_, listener) {
    in_stage(collector_, kSetupStage, [&] { setup_ = set_up(job_); });
    const auto rehearsed = [&](const RehearsalOptions& options) { return rehearse(job_, setup_, options); };
    const bool is_heard = listener.on_message || listener.on_progress;
    in_stage(collector_, kPlanStage, [&] { decision_ = decide(job_, setup_, rehearsed, is_heard); });
    collector_.planned(decision_.plan);
    in_stage(collector_, kSetupStage, [&] { open_session(); });
  }

  Report report() {
    try {
      return compute();
    } catch (const OutOfMemory& error) {
      throw collector_.located(error);
    } catch (const DeviceError& error) {
      throw collector_.located(error);
    }
  }

 private:
  Report compute();
  const Facts& facts() const { return setup_.facts; }
  void open_session();
  std::vector<TokenSequence> read_calibration_data();
  // Chooses the bits of each step, in a separate pass through the model.
  void choose_bits(const std::vector<TokenSequence>& sequences);
  void store(const LinearSpec& linear, const Quantized& quantized, Backend& backend, LinearReport& entry);

  Job job_;  // its recipe is complete after choose_bits()
  Collector collector_;
  Setup setup_;
  Decision decision_;
  Layout layout_;  // of the output; final after choose_bits()
  std::optional<Devices> devices_;
  std::optional<DeviceSession> session_;
  std::optional<Output> output_;
  std::optional<ThreadPool> pool_;
};

void Run::open_session() {
  devices_.emplace(facts().resources, job_.threads, &decision_.process);
  const Strategy& strategy = decision_.strategy;
  session_.emplace(*facts().checkpoint, facts().placement, *devices_, facts().precision.computed, nullptr,
                   StateOptions{strategy.states, strategy.keeps_inputs, state_bytes(facts()), job_.spill_dir});
  std::string names;
  for (const auto& [name, backend] : devices_->opened()) names += (names.empty() ? "" : "; ") + backend->description();
  collector_.opened(names);
}

std::vector<TokenSequence> Run::read_calibration_data() {
  const Calibration& calibration = facts().calibration;
  const TextSource source{.file = calibration.file,
                          .tokenizer = tokenizer_of(facts().checkpoint->folder()),
                          .ids = calibration.ids.empty() ? nullptr : &calibration.ids,
                          .stop = job_.stop};
  std::vector<TokenSequence> sequences =
      read_calibration(source, {calibration.samples, calibration.sequence_length, calibration.seed});
  collector_.calibrated(calibration, sequences);
  return sequences;
}

void Run::choose_bits(const std::vector<TokenSequence>& sequences) {
  BitMeasurement measurement(*session_, job_.recipe, facts().widths, measuring_batches(sequences), collector_, &*pool_);
  measurement.walk(every_block(facts().config.blocks), {.read_ahead = decision_.strategy.read_ahead});
  const std::vector<ProbedStep> steps = measurement.read();
  session_->model().output_head().drop();
  collector_.trimmed("bits chosen", session_->trim());
  session_->trim_staging();
  std::vector<BitUnit> units;
  units.reserve(steps.size());
  for (const ProbedStep& step : steps) units.push_back(step.unit);
  std::vector<int> chosen;
  for (const size_t candidate : gptq::choose_bits(units, facts().free_average))
    chosen.push_back(units[chosen.size()].candidates[candidate].bits);
  job_.recipe = with_choice(job_.recipe, steps, chosen);
  collector_.chose(steps, chosen);
}

// Written in the background; at most writes_behind() linears wait in memory.
void Run::store(const LinearSpec& linear, const Quantized& quantized, Backend& backend, LinearReport& entry) {
  output_->make_room();
  // Shared because a task must be copyable, which Matrix is not.
  auto fetched = std::make_shared<FetchedLinear>(
      fetch(backend, quantized.codes, quantized.grid(), quantized.g_idx, backend.staging_memory()));
  output_->write(linear.name, std::move(fetched),
                 [&entry](const FetchedLinear& written) { entry.scales = scales_of(written); });
}

Report Run::compute() {
  const bool calibrates = job_.recipe.method == Method::gptq, chooses = !facts().widths.empty();
  // Checks that the output can be written before anything is computed, with the smallest possible layout.
  layout_ = chooses ? lay_out(at_width(job_, facts().widths[0]), facts()) : std::move(setup_.layout);
  const auto open_output = [&] {
    output_.reset();
    output_.emplace(job_, facts(), layout_, session_->gate());
  };
  open_output();
  std::vector<TokenSequence> sequences;
  if (calibrates) sequences = in_stage(collector_, kCalibrationStage, [&] { return read_calibration_data(); });
  double work = quantizing_work(job_.recipe, facts(), layout_, count_tokens(sequences));
  if (chooses) work += probing_work(job_.recipe, facts(), sequences);
  collector_.expect(facts(), layout_, work);
  collector_.store_with([this](const LinearSpec& linear, const Quantized& quantized, Backend& backend,
                               LinearReport& entry) { store(linear, quantized, backend, entry); });
  pool_.emplace(job_.threads);
  if (chooses) {
    choose_bits(sequences);
    layout_ = lay_out(job_, facts());
    open_output();
  }
  Quantization quantization(*session_, job_.recipe, collector_);
  if (calibrates) quantization.embed(make_batches(sequences, job_.batch_size, facts().batch_tokens), &*pool_);
  pool_.reset();
  in_stage(collector_, kPackStage, [&] { output_->carry_over(job_); });
  quantization.walk(every_block(facts().config.blocks), {.read_ahead = decision_.strategy.read_ahead});
  quantization.head();
  collector_.note_devices(devices_->opened());
  in_stage(collector_, kCommitStage, [&] { output_->commit(); });
  const int64_t spill_bytes = quantization.spill_bytes();
  quantization.drop_states();
  session_->close_model();
  collector_.trimmed("end", session_->trim());
  return collector_.finish(facts(), layout_, spill_bytes, output_->bytes());
}

}  // namespace

Plan plan(const Job& job) {
  const Setup setup = set_up(job);
  const auto rehearsed = [&](const RehearsalOptions& options) { return rehearse(job, setup, options); };
  return decide(job, setup, rehearsed, true).plan;
}

Report quantize(const Job& job, const Listener& listener) { return Run(job, listener).report(); }

void remove_partial_output(const std::string& output) { CheckpointWriter::remove_partial(output); }

}  // namespace gptq
