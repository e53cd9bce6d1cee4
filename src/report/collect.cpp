#include "report/collect.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "data/batches.h"
#include "model/work.h"
#include "quant/targets.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

std::string short_names(const std::vector<LinearSpec>& linears) {
  std::string names;
  if (linears[0].expert >= 0) names = cat("expert ", linears[0].expert, " ");
  for (const LinearSpec& linear : linears)
    names += (names.empty() || names.back() == ' ' ? "" : ",") + linear.name.substr(linear.name.rfind('.') + 1);
  return names;
}

// Average bits per weight in the blocks.
double average_bits(const Facts& facts, const Layout& layout) {
  const std::string head = head_spec(facts.config).name;
  double bits = 0, weights = 0;
  for (const auto& [name, linear] : layout.quantized) {
    if (name == head) continue;
    const auto size = static_cast<double>(linear.spec.in_features * linear.spec.out_features);
    weights += size;
    bits += size * linear.recipe.bits;
  }
  return weights > 0 ? bits / weights : 0;
}

}  // namespace

void Collector::tell(Level level, const std::string& text) {
  if (level == Level::warning) report_.warnings.push_back(text);
  if (listener_.on_message) listener_.on_message(level, text);
}

void Collector::planned(const Plan& plan) {
  report_.plan = plan;
  sequences_at_once_ = plan.sequences_at_once;
  for (const std::string& text : plan.messages) tell(Level::message, text);
  for (const std::string& text : plan.warnings) tell(Level::warning, text);
  tell(Level::message, short_form(plan));
}

void Collector::opened(const std::string& devices) {
  report_.device = devices;
  tell(Level::message, cat("device: ", devices));
}

void Collector::calibrated(const Calibration& calibration, const std::vector<TokenSequence>& sequences) {
  const std::string source = calibration.ids.empty() ? calibration.file : "the given token ids";
  report_.sequences = static_cast<int64_t>(sequences.size());
  report_.tokens = count_tokens(sequences);
  if (report_.sequences < calibration.samples) {
    tell(Level::warning, cat("calibration: ", source, " gives ", report_.sequences, " sequences (", report_.tokens,
                             " tokens), fewer than the ", calibration.samples, " of `samples`"));
  }
  tell(Level::message, cat("calibration: ", report_.sequences, " sequences, ", report_.tokens, " tokens of ", source));
}

void Collector::expect(const Facts& facts, const Layout& layout, double multiply_adds) {
  blocks_ = facts.config.blocks;
  layout_ = &layout;
  work_ = multiply_adds;
  report_.linears.reserve(layout.quantized.size());
}

void Collector::chose(const std::vector<ProbedStep>& steps, const std::vector<int>& bits) {
  std::map<int, int> counts;
  for (size_t i = 0; i < bits.size(); ++i) {
    ++counts[bits[i]];
    BitChoice& choice = report_.bit_choices.emplace_back();
    choice.linears = steps[i].linears;
    choice.bits = bits[i];
    for (const BitUnit::Candidate& candidate : steps[i].unit.candidates)
      choice.divergence.emplace_back(candidate.bits, candidate.loss);
  }
  std::string text;
  for (const auto& [width, count] : counts) text += cat(text.empty() ? "" : ", ", width, " in ", count, " steps");
  tell(Level::message, cat("bits: ", text));
}

void Collector::begin_stage(const char* stage) {
  clock_.begin(stage);
  if (clock_.stage() == kReadStage || clock_.stage() == kEmbeddingStage || clock_.stage() == kMeasureStage)
    step_ = stage;
  if (backend_ == nullptr) return;
  backend_->set_stage(stage);
  if (clock_.stage() == kLoadStage || clock_.stage() == kEmbeddingStage) bytes_in_ -= backend_->traffic().uploaded;
}

void Collector::end_stage() {
  clock_.end();
  if (backend_ == nullptr) return;
  backend_->set_stage("");
  if (clock_.stage() == kLoadStage || clock_.stage() == kEmbeddingStage) bytes_in_ += backend_->traffic().uploaded;
}

void Collector::begin_unit(const Placement::Unit& unit, int64_t block, Backend& backend) {
  check_stop(job_.stop);
  if (blocks_began_ < 0 && block >= 0) blocks_began_ = clock_.elapsed();
  unit_ = &unit;
  block_ = std::max<int64_t>(block, 0);
  backend_ = &backend;
  bytes_in_ = bytes_out_ = 0;
}

void Collector::end_unit(int64_t sequences_at_once) {
  if (sequences_at_once < sequences_at_once_) {
    sequences_at_once_ = sequences_at_once;
    tell(Level::warning, cat(unit_->module, ": ", unit_->computes_on, " ran out of memory; from here on ",
                             sequences_at_once, " sequences pass at a time, with the same result"));
  }
  if (unit_->visits) report_.visits.push_back({unit_->module, unit_->computes_on, bytes_in_, bytes_out_});
  unit_ = nullptr;
}

void Collector::trimmed(const std::string& when, const std::vector<Trimmed>& devices) {
  for (const Trimmed& device : devices)
    report_.trims.push_back({when, device.device, device.held_before, device.held_after});
}

void Collector::begin_step(const std::vector<LinearSpec>& step) { step_ = short_names(step); }

void Collector::worked(double multiply_adds) {
  check_stop(job_.stop);
  work_done_ += multiply_adds;
  if (!listener_.on_progress || multiply_adds == 0) return;
  Progress progress{.text = step_, .block = block_, .blocks = blocks_, .loss = last_loss_};
  progress.fraction = std::min(1.0, work_done_ / work_);
  progress.seconds = clock_.elapsed();
  const double working = progress.seconds - blocks_began_;
  progress.remaining_seconds = progress.fraction > 0 ? working * (1 / progress.fraction - 1) : 0;
  progress.tokens_per_second =
      working > 0 ? progress.fraction * static_cast<double>(report_.tokens * progress.blocks) / working : 0;
  progress.memory_bytes = resident_bytes();
  listener_.on_progress(progress);
}

void Collector::swept(const std::vector<LinearSpec>& step, int64_t tokens) {
  worked(step.empty() ? 0 : sweep_work(step, tokens, wants_original_states(job_.recipe)));
}

void Collector::solved_step(const std::vector<LinearSpec>& step, int64_t dropped_rows) {
  report_.dropped_rows += dropped_rows;
  double work = 0;
  for (const LinearSpec& linear : step) work += layout_->is_quantized(linear) ? solve_work(linear) : 0;
  worked(work);
}

void Collector::solved(const LinearSpec& linear, const Quantized& quantized, const FactoredHessian* hessian,
                       Backend& backend) {
  check_stop(job_.stop);
  const double damp = hessian != nullptr ? hessian->damp_percent : 0;
  // Reported once per step, as its linears share the Hessian.
  if (const std::string step = cat(block_, " ", step_); damp > job_.recipe.damp_percent && damped_step_ != step) {
    damped_step_ = step;
    tell(Level::warning,
         cat(linear.name, ": its Hessian needed damping ", damp, " instead of ", job_.recipe.damp_percent));
  }
  in_stage(*this, kPackStage, [&] {
    // Addresses are stable: the list has reserved room for all entries.
    LinearReport& entry = report_.linears.emplace_back();
    entry = {.name = linear.name,
             .block = linear.step == StepKind::head ? -1 : block_,
             .expert = linear.expert,
             .rows = linear.out_features,
             .cols = linear.in_features,
             .bits = quantized.bits,
             .group_size = quantized.group_size,
             .loss = quantized.loss,
             .error = quantized.error,
             .stages = quantized.stages,
             .target_shift = quantized.target_shift,
             .tokens = hessian != nullptr ? hessian->tokens : 0,
             .routed = hessian != nullptr ? hessian->routed : -1,
             .damp_percent = damp,
             .dead_columns = hessian != nullptr ? static_cast<int64_t>(hessian->dead.size()) : 0};
    bytes_out_ -= backend.traffic().downloaded;
    store_(linear, quantized, backend, entry);
    bytes_out_ += backend.traffic().downloaded;
  });
  last_loss_ = quantized.loss;
}

void Collector::note_devices(const std::map<std::string, std::unique_ptr<Backend>>& devices) {
  for (const auto& [name, backend] : devices) {
    for (const auto& [op, count] : backend->fallbacks()) report_.fallbacks.emplace_back(op, count);
    Report::DeviceUse use{name, backend->memory_use().peak, backend->traffic().uploaded, backend->traffic().downloaded};
    for (const auto& [stage, op, seconds] : backend->device_seconds()) use.op_seconds.push_back({stage, op, seconds});
    report_.devices.push_back(std::move(use));
  }
}

// The run's time by stage. A single device with its own clock is more accurate than the host, which only queues work:
// then the host's part is the time before the device's first work and after its last.
std::vector<std::pair<std::string, double>> Collector::stage_seconds() const {
  std::map<std::string, double> host = clock_.seconds();
  if (const auto embedding = host.find(kEmbeddingStage); embedding != host.end()) {
    host[kCalibrationStage] += embedding->second;
    host.erase(embedding);
  }
  const Report::DeviceUse* clock = nullptr;
  for (const Report::DeviceUse& device : report_.devices) {
    if (!device.op_seconds.empty()) clock = report_.devices.size() == 1 ? &device : nullptr;
  }
  if (clock == nullptr) return {host.begin(), host.end()};
  std::map<std::string, double> stages;
  for (const char* stage : {kSetupStage, kPlanStage, kCalibrationStage, kCommitStage}) stages[stage] = host[stage];
  for (const auto& [stage, op, seconds] : clock->op_seconds) {
    if (stage == kEmbeddingStage) continue;  // included in kCalibrationStage, where the host waits for it
    const bool feedback = stage == "columns" && op == "linear";
    const bool moving = stage.empty() && (op == "upload" || op == "download");
    stages[op == "idle" || op == "attention" ? op : feedback ? "feedback" : moving ? kMovingStage : stage] += seconds;
  }
  return {stages.begin(), stages.end()};
}

// Reports the tokens of experts, and the experts with too few.
void Collector::tell_of_experts() {
  constexpr size_t kNamed = 8;
  std::vector<int64_t> routed;
  std::vector<std::string> few;
  for (const LinearReport& linear : report_.linears) {
    if (linear.routed < 0) continue;
    routed.push_back(linear.routed);
    if (linear.routed < linear.tokens) few.push_back(cat(linear.name, " (", linear.routed, ")"));
  }
  if (routed.empty()) return;
  std::sort(routed.begin(), routed.end());
  tell(Level::message, cat("experts: ", routed.front(), " to ", routed.back(), " tokens each, half of them at most ",
                           routed[routed.size() / 2]));
  if (few.empty() || job_.recipe.moe_calibrate_all_experts) return;
  std::string names;
  for (size_t i = 0; i < std::min(few.size(), kNamed); ++i) names += cat(i == 0 ? "" : ", ", few[i]);
  if (few.size() > kNamed) names += cat(" and ", few.size() - kNamed, " more, which the report lists");
  tell(Level::warning, cat(few.size(), " linears of experts saw fewer than ", job_.recipe.expert_tokens,
                           " tokens and were quantized with what they would do to all tokens: ", names,
                           "; take more `samples`, or `moe_calibrate_all_experts`"));
}

Report Collector::finish(const Facts& facts, const Layout& layout, int64_t spill_bytes, int64_t output_bytes) {
  report_.model = job_.model;
  report_.output = job_.output;
  report_.recipe = resolve(job_.recipe);
  report_.checkpoint_format = facts.format->name();
  report_.compute_dtype = name_of(facts.precision.computed);
  report_.device_map = facts.placement.map;
  report_.states = report_.plan.states;
  report_.quantized_weights = layout.quantized_weights;
  report_.bits_per_weight = layout.bits_per_weight;
  report_.average_bits = average_bits(facts, layout);
  report_.source_bytes = static_cast<int64_t>(facts.checkpoint->bytes());
  report_.output_bytes = output_bytes;
  report_.spill_bytes = spill_bytes;
  tell_of_experts();
  if (report_.dropped_rows > 0) {
    tell(Level::warning,
         cat(report_.dropped_rows, " calibration rows held NaN or infinity and were left out of the Hessians"));
  }
  report_.stage_seconds = stage_seconds();
  report_.seconds = clock_.elapsed();
  report_.cpu_seconds = cpu_seconds() - cpu_at_start_;
  report_.peak_memory_bytes = peak_resident_bytes();
  return std::move(report_);
}

std::string Collector::place() const { return unit_ != nullptr ? cat(unit_->module, ", step ", step_) : ""; }

OutOfMemory Collector::located(const OutOfMemory& error) const {
  if (unit_ == nullptr) return error;
  return OutOfMemory(cat(place(), ": ", error.what(),
                         "; give it more with `max_memory`, or take fewer `samples` or a smaller `batch_size`"));
}

DeviceError Collector::located(const DeviceError& error) const {
  if (unit_ == nullptr) return error;
  return DeviceError(cat(place(), ", ", clock_.stage(), ": ", error.what()));
}

}  // namespace gptq
