#include "run/quantize_run.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/batches.h"
#include "model/work.h"
#include "plan/mixed_bits.h"
#include "quant/targets.h"
#include "recipe/rules.h"
#include "run/final_check.h"
#include "run/fingerprint.h"
#include "run/probe.h"
#include "run/rehearse.h"
#include "run/replay.h"

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

std::vector<int> chosen_bits(const std::vector<ProbedStep>& steps, double average_bits) {
  std::vector<BitUnit> units;
  units.reserve(steps.size());
  for (const ProbedStep& step : steps) units.push_back(step.unit);
  std::vector<int> bits;
  for (const size_t candidate : choose_bits(units, average_bits))
    bits.push_back(units[bits.size()].candidates[candidate].bits);
  return bits;
}

// Multiply-adds of all parts from `first` on, and of bringing the states there.
double work_from(int64_t first, const Job& job, const Facts& facts, const Layout& layout, int64_t tokens) {
  const Recipe& recipe = job.recipe;
  const bool calibrates = recipe.method == Method::gptq, two_streams = wants_original_states(recipe);
  const int64_t blocks = facts.config.blocks;
  double work = 0;
  const auto add = [&](const std::vector<LinearSpec>& step) {
    if (calibrates) work += sweep_work(step, tokens, two_streams);
    for (const LinearSpec& linear : step) work += layout.is_quantized(linear) ? solve_work(linear) : 0;
  };
  for (int64_t block = first; block < blocks; ++block) {
    for (const auto& step : step_specs(facts.config, block)) add(step);
  }
  const LinearSpec head = head_spec(facts.config);
  if (first <= blocks && layout.is_quantized(head)) add({head});
  if (calibrates) work += replay_work(facts.config, std::min(first, blocks), tokens) * (two_streams ? 2 : 1);
  if (calibrates && job.final_check) {  // two streams through the blocks, one through the output
    const Calibration& calibration = facts.calibration;
    work += 3 * replay_work(facts.config, blocks, held_back_sequences(calibration) * held_back_length(calibration));
  }
  return work;
}

CalibrationText read_calibration_data(const Job& job, const Facts& facts) {
  const Calibration& calibration = facts.calibration;
  const TextSource source{.file = calibration.file,
                          .tokenizer = tokenizer_of(facts.checkpoint->folder()),
                          .ids = calibration.ids.empty() ? nullptr : &calibration.ids,
                          .stop = job.stop,
                          .key = calibration.key};
  return read_calibration_text(source, {calibration.samples, calibration.sequence_length, calibration.seed},
                               job.final_check ? held_back_sequences(calibration) : 0);
}

std::string names_of(const Devices& devices) {
  std::string names;
  for (const auto& [name, backend] : devices.opened()) names += (names.empty() ? "" : "; ") + backend->description();
  return names;
}

double probing_work(const Recipe& recipe, const Facts& facts, const std::vector<TokenSequence>& sequences) {
  int64_t tokens = 0;
  const auto batches = measuring_batches(sequences);
  for (const auto& batch : batches) tokens += count_tokens(batch);
  return probing_work(facts.config, recipe, facts.widths, tokens, count_tokens(batches[0]));
}

}  // namespace

QuantizeRun::QuantizeRun(const Job& job, const Listener& listener) : job_(job), collector_(job_, listener) {
  in_stage(collector_, kSetupStage, [&] { setup_ = set_up(job_); });
  const auto rehearsed = [&](const RehearsalOptions& options) { return rehearse(job_, setup_, options); };
  const bool is_heard = listener.on_message || listener.on_progress;
  in_stage(collector_, kPlanStage, [&] { decision_ = decide(job_, setup_, rehearsed, is_heard); });
  collector_.planned(decision_.plan);
  in_stage(collector_, kSetupStage, [&] { open_session(); });
}

QuantizeRun::~QuantizeRun() {
  if (output_) output_->stop_writing();
  continuation_.reset();
}

Report QuantizeRun::report() {
  try {
    return compute();
  } catch (...) {
    if (job_.resume && continuation_) continuation_->leave();
    collector_.progress().throw_located();
  }
}

void QuantizeRun::open_session() {
  devices_.emplace(facts().resources, job_.threads, &decision_.process);
  const Strategy& strategy = decision_.strategy;
  session_.emplace(*facts().checkpoint, facts().placement, *devices_, facts().precision.computed, nullptr,
                   StateOptions{strategy.states, strategy.keeps_inputs, state_bytes(facts()), job_.spill_dir});
  collector_.opened(names_of(*devices_));
}

void QuantizeRun::choose_bits(const std::vector<TokenSequence>& sequences) {
  if (!continuation_->measured()) {
    BitMeasurement measurement(*session_, job_.recipe, facts().widths, measuring_batches(sequences), collector_,
                               &*pool_);
    measurement.walk(every_block(blocks()), {.read_ahead = decision_.strategy.read_ahead});
    continuation_->set_measured(measurement.read());
    session_->model().output_head().drop();
    collector_.trimmed("bits chosen", session_->trim());
    session_->trim_staging();
  }
  const std::vector<ProbedStep>& steps = *continuation_->measured();
  const std::vector<int> chosen = chosen_bits(steps, facts().free_average);
  job_.recipe = with_choice(job_.recipe, steps, chosen);
  collector_.chose(steps, chosen);
}

// Written in the background; at most writes_behind() linears wait in memory.
void QuantizeRun::store(const LinearSpec& linear, const Quantized& quantized, Backend& backend, LinearReport& entry) {
  output_->make_room();
  continuation_->add(entry);
  // Shared because a task must be copyable, which Matrix is not.
  auto fetched = std::make_shared<FetchedLinear>(
      fetch(backend, quantized.codes, quantized.grid(), quantized.g_idx, backend.staging_memory()));
  output_->write(linear.name, std::move(fetched),
                 [&entry](const FetchedLinear& written) { entry.scales = scales_of(written); });
}

void QuantizeRun::restore_states(Quantization& quantization, int64_t longest) {
  const int64_t done = continuation_->blocks();
  const int64_t reached = in_stage(collector_, kEmbeddingStage, [&] {
    return continuation_->restore_states(quantization.stores(), session_->first());
  });
  if (reached == done) return;
  output_->wait_for_copies();
  WrittenModel finished(folder_->model(), facts(), *devices_);
  finished.session.prepare(longest);
  quantization.replay(finished.session, reached, done,
                      {.read_ahead = decision_.strategy.read_ahead, .at_boundary = {}, .stop = job_.stop});
}

void QuantizeRun::check_room() const {
  folder_->check_room(static_cast<size_t>(layout_.output_bytes) + facts().checkpoint->side_bytes());
}

bool QuantizeRun::is_finished() const {
  const bool quantizes_head = layout_.is_quantized(head_spec(facts().config));
  return continuation_->parts() >= blocks() + (quantizes_head ? 1 : 0);
}

void QuantizeRun::embed(const CalibrationText& text, Quantization& quantization) {
  std::vector<std::vector<TokenSequence>> batches, held_back;
  if (!is_finished()) batches = make_batches(text.sequences, job_.batch_size, facts().batch_tokens);
  if (job_.final_check && decision_.strategy.checks)
    held_back = held_back_batches(text, facts().calibration, job_.batch_size, facts().batch_tokens);
  if (!batches.empty() || !held_back.empty()) quantization.embed(batches, std::move(held_back), &*pool_);
}

void QuantizeRun::quantize(Quantization& quantization, const std::vector<TokenSequence>& sequences) {
  const int64_t done = continuation_->blocks();
  if (calibrates() && done > 0) restore_states(quantization, static_cast<int64_t>(sequences[0].size()));
  if (is_finished()) return;
  const bool saves_states = job_.checkpoint_states && calibrates();
  const auto at_boundary = [&](const Stop& stop) {
    continuation_->note_part(stop.block);
    const bool states_are_needed = stop.block + 1 < blocks() || job_.recipe.lm_head;
    if (saves_states && states_are_needed)
      continuation_->save_states(stop.block + 1, quantization.stores(), session_->team(stop.block).lead());
  };
  quantization.walk(blocks_between(done, blocks()),
                    {.read_ahead = decision_.strategy.read_ahead, .at_boundary = at_boundary});
  if (quantization.head()) continuation_->note_part(blocks());
}

void QuantizeRun::check(HeldBack& held_back, const CalibrationText& text) {
  output_->wait_for_linears();
  output_->wait_for_copies();
  WrittenModel written(folder_->model(), facts(), *devices_);
  Check check =
      check_output(held_back, *session_, written.session, every_block(blocks()), collector_, !job_.recipe.lm_head,
                   {.read_ahead = decision_.strategy.read_ahead, .at_boundary = {}, .stop = job_.stop});
  check.held_back = !text.held_back.empty();
  check.frequency_nll = loss_of_frequencies(text.sequences, held_back.batches(), facts().config.vocabulary);
  collector_.checked(check);
}

void QuantizeRun::commit() {
  output_->wait_for_linears();
  continuation_->end();  // its notes sync the shards, which finish() closes
  output_->finish();
  for (const std::string& remark : folder_->put_in_place()) collector_.remark(Level::warning, remark);
}

Report QuantizeRun::compute() {
  // Checks that the output can be written before anything is computed, with the smallest possible layout.
  layout_ = chooses() ? lay_out(at_width(job_, facts().widths[0]), facts()) : std::move(setup_.layout);
  folder_.emplace(job_.output, job_.model, OutputFolder::Options{job_.overwrite, job_.resume});
  check_room();
  CalibrationText text;
  if (calibrates()) {
    text = in_stage(collector_, kCalibrationStage, [&] { return read_calibration_data(job_, facts()); });
    collector_.calibrated(facts().calibration, text.sequences);
  }
  const std::vector<TokenSequence>& sequences = text.sequences;
  const int64_t tokens = count_tokens(sequences);
  continuation_.emplace(*folder_, fingerprint(job_, facts(), *devices_, sequences), blocks(), collector_);
  collector_.store_with([this](const LinearSpec& linear, const Quantized& quantized, Backend& backend,
                               LinearReport& entry) { store(linear, quantized, backend, entry); });
  pool_.emplace(job_.threads);
  if (chooses()) {
    double work = work_from(0, job_, facts(), layout_, tokens);
    if (!continuation_->measured()) work += probing_work(job_.recipe, facts(), sequences);
    collector_.expect(facts(), layout_, work);
    choose_bits(sequences);
    layout_ = lay_out(job_, facts());
    check_room();
  }
  output_.emplace(job_, facts(), layout_, session_->gate(), *folder_);
  continuation_->begin(*output_);
  if (!chooses() || continuation_->parts() > 0) {
    collector_.expect(facts(), layout_, work_from(continuation_->parts(), job_, facts(), layout_, tokens));
  }

  Quantization quantization(*session_, job_.recipe, collector_);
  if (calibrates()) embed(text, quantization);
  pool_.reset();
  in_stage(collector_, kPackStage, [&] { output_->carry_over(job_); });
  if (!is_finished() || quantization.held_back() != nullptr) quantize(quantization, sequences);
  if (HeldBack* held_back = quantization.held_back()) check(*held_back, text);
  collector_.note_devices(devices_->opened());
  in_stage(collector_, kCommitStage, [&] { commit(); });
  const int64_t spill_bytes = quantization.spill_bytes();
  quantization.drop_states();
  session_->close_model();
  collector_.trimmed("end", session_->trim());
  return collector_.finish(facts(), layout_, spill_bytes, output_->bytes());
}

}  // namespace gptq
