#include "report/collect.h"

#include <utility>

#include "base/error.h"
#include "data/batches.h"
#include "data/built_in_text.h"
#include "model/work.h"
#include "quant/targets.h"
#include "report/summary.h"

namespace gptq {
namespace {

LinearReport entry_of(const LinearSpec& linear, int64_t block, const Quantized& quantized,
                      const FactoredHessian* hessian) {
  return {.name = linear.name,
          .block = linear.step == StepKind::head ? -1 : block,
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
          .damp_percent = hessian != nullptr ? hessian->damp_percent : 0,
          .dead_columns = hessian != nullptr ? static_cast<int64_t>(hessian->dead.size()) : 0};
}

}  // namespace

void Collector::tell(Level level, const std::string& text) {
  if (level == Level::warning) report_.warnings.push_back(text);
  progress_.tell(level, text);
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
  const bool is_built_in = calibration.ids.empty() && calibration.file.empty();
  const std::string source = !calibration.ids.empty() ? "the given token ids"
                             : is_built_in            ? kBuiltInTextName
                                                      : calibration.file;
  report_.sequences = static_cast<int64_t>(sequences.size());
  report_.tokens = count_tokens(sequences);
  if (report_.sequences < calibration.samples && !is_built_in) {
    tell(Level::warning, cat("calibration: ", source, " gives ", report_.sequences, " sequences (", report_.tokens,
                             " tokens), fewer than the ", calibration.samples, " of `samples`"));
  }
  tell(Level::message, cat("calibration: ", report_.sequences, " sequences, ", report_.tokens, " tokens of ", source));
}

void Collector::expect(const Facts& facts, const Layout& layout, double multiply_adds) {
  progress_.expect(facts.config.blocks, report_.tokens, multiply_adds);
  layout_ = &layout;
  report_.linears.reserve(layout.quantized.size());
}

void Collector::restored(const std::vector<LinearReport>& linears, int64_t dropped_rows) {
  report_.linears.insert(report_.linears.end(), linears.begin(), linears.end());
  report_.dropped_rows += dropped_rows;
  ++report_.resumed_parts;
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
  progress_.begin_stage(stage);
  if (backend_ == nullptr) return;
  backend_->set_stage(stage);
  if (loads_weights()) bytes_in_ -= backend_->traffic().uploaded;
}

void Collector::end_stage() {
  progress_.end_stage();
  if (backend_ == nullptr) return;
  backend_->set_stage("");
  if (loads_weights()) bytes_in_ += backend_->traffic().uploaded;
}

bool Collector::loads_weights() const {
  const std::string& stage = progress_.clock().stage();
  return stage == kLoadStage || stage == kEmbeddingStage;
}

void Collector::begin_unit(const Placement::Unit& unit, int64_t block, Backend& backend) {
  check_stop(job_.stop);
  progress_.begin_unit(unit, block);
  backend_ = &backend;
  bytes_in_ = bytes_out_ = 0;
}

void Collector::end_unit(int64_t sequences_at_once) {
  const Placement::Unit& unit = *progress_.unit();
  if (sequences_at_once < sequences_at_once_) {
    sequences_at_once_ = sequences_at_once;
    tell(Level::warning, cat(unit.module, ": ", unit.computes_on, " ran out of memory; from here on ",
                             sequences_at_once, " sequences pass at a time, with the same result"));
  }
  if (unit.visits) report_.visits.push_back({unit.module, unit.computes_on, bytes_in_, bytes_out_});
  progress_.end_unit();
}

void Collector::trimmed(const std::string& when, const std::vector<Trimmed>& devices) {
  for (const Trimmed& device : devices)
    report_.trims.push_back({when, device.device, device.held_before, device.held_after});
}

void Collector::begin_step(const std::vector<LinearSpec>& step) { progress_.begin_step(step); }

void Collector::worked(double multiply_adds) {
  check_stop(job_.stop);
  progress_.worked(multiply_adds);
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
  if (const std::string step = cat(progress_.block(), " ", progress_.step());
      damp > job_.recipe.damp_percent && damped_step_ != step) {
    damped_step_ = step;
    tell(Level::warning,
         cat(linear.name, ": its Hessian needed damping ", damp, " instead of ", job_.recipe.damp_percent));
  }
  in_stage(*this, kPackStage, [&] {
    // Addresses are stable: the list has reserved room for all entries.
    LinearReport& entry = report_.linears.emplace_back(entry_of(linear, progress_.block(), quantized, hessian));
    bytes_out_ -= backend.traffic().downloaded;
    store_(linear, quantized, backend, entry);
    bytes_out_ += backend.traffic().downloaded;
  });
  progress_.solved(quantized.loss);
}

void Collector::checked(const Check& check) {
  report_.check = check;
  for (const Notice& notice : check_notices(check, report_.linears)) tell(notice.level, notice.text);
}

void Collector::note_devices(const std::map<std::string, std::unique_ptr<Backend>>& devices) {
  for (const auto& [name, backend] : devices) {
    for (const auto& [op, count] : backend->fallbacks()) report_.fallbacks.emplace_back(op, count);
    Report::DeviceUse use{name, backend->memory_use().peak, backend->traffic().uploaded, backend->traffic().downloaded};
    for (const auto& [stage, op, seconds] : backend->device_seconds()) use.op_seconds.push_back({stage, op, seconds});
    report_.devices.push_back(std::move(use));
  }
}

Report Collector::finish(const Facts& facts, const Layout& layout, int64_t spill_bytes, int64_t output_bytes) {
  describe_job(report_, job_, facts, layout);
  report_.output_bytes = output_bytes;
  report_.spill_bytes = spill_bytes;
  if (const std::string text = expert_tokens_message(report_.linears); !text.empty()) tell(Level::message, text);
  for (const auto warning : {few_tokens_warning, dead_columns_warning})
    if (const std::string text = warning(report_.linears, job_.recipe); !text.empty()) tell(Level::warning, text);
  if (report_.dropped_rows > 0) {
    tell(Level::warning,
         cat(report_.dropped_rows, " calibration rows held NaN or infinity and were left out of the Hessians"));
  }
  report_.stage_seconds = stage_seconds(progress_.clock().seconds(), report_.devices);
  report_.seconds = progress_.clock().elapsed();
  report_.cpu_seconds = cpu_seconds() - cpu_at_start_;
  report_.peak_memory_bytes = peak_resident_bytes();
  return std::move(report_);
}

}  // namespace gptq
