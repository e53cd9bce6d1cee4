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
#include "run/fingerprint.h"
#include "run/probe.h"
#include "run/rehearse.h"
#include "run/replay.h"
#include "run/saved_states.h"

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

double probing_work(const Recipe& recipe, const Facts& facts, const std::vector<TokenSequence>& sequences) {
  int64_t tokens = 0;
  const auto batches = measuring_batches(sequences);
  for (const auto& batch : batches) tokens += count_tokens(batch);
  return probing_work(facts.config, recipe, facts.widths, tokens, count_tokens(batches[0]));
}

// Two files in turn, so that one is whole while the other is written.
std::string states_file(int64_t block) { return block % 2 == 0 ? "states-0" : "states-1"; }

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
  journal_.reset();
}

Report QuantizeRun::report() {
  try {
    return compute_or_say_how_to_continue();
  } catch (const OutOfMemory& error) {
    throw collector_.progress().located(error);
  } catch (const DeviceError& error) {
    throw collector_.progress().located(error);
  }
}

Report QuantizeRun::compute_or_say_how_to_continue() {
  try {
    return compute();
  } catch (...) {
    if (job_.resume && finished_ > 0 && output_) {
      output_->settle();
      finish_journal();
      collector_.remark(Level::message, cat(folder_->path().string(), " has ", std::min(finished_, blocks()), " of ",
                                            blocks(), " blocks: the same job with `resume` continues there"));
    }
    throw;
  }
}

void QuantizeRun::open_session() {
  devices_.emplace(facts().resources, job_.threads, &decision_.process);
  const Strategy& strategy = decision_.strategy;
  session_.emplace(*facts().checkpoint, facts().placement, *devices_, facts().precision.computed, nullptr,
                   StateOptions{strategy.states, strategy.keeps_inputs, state_bytes(facts()), job_.spill_dir});
  std::string names;
  for (const auto& [name, backend] : devices_->opened()) names += (names.empty() ? "" : "; ") + backend->description();
  collector_.opened(names);
}

std::vector<TokenSequence> QuantizeRun::read_calibration_data() {
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

std::vector<ProbedStep> QuantizeRun::measure(const std::vector<TokenSequence>& sequences) {
  BitMeasurement measurement(*session_, job_.recipe, facts().widths, measuring_batches(sequences), collector_, &*pool_);
  measurement.walk(every_block(blocks()), {.read_ahead = decision_.strategy.read_ahead});
  std::vector<ProbedStep> steps = measurement.read();
  session_->model().output_head().drop();
  return steps;
}

void QuantizeRun::choose_bits(const std::vector<TokenSequence>& sequences) {
  if (!journal_->measured()) {
    journal_->set_measured(measure(sequences));
    collector_.trimmed("bits chosen", session_->trim());
    session_->trim_staging();
  }
  const std::vector<ProbedStep>& steps = *journal_->measured();
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
void QuantizeRun::store(const LinearSpec& linear, const Quantized& quantized, Backend& backend, LinearReport& entry) {
  output_->make_room();
  entries_.push_back(&entry);
  // Shared because a task must be copyable, which Matrix is not.
  auto fetched = std::make_shared<FetchedLinear>(
      fetch(backend, quantized.codes, quantized.grid(), quantized.g_idx, backend.staging_memory()));
  output_->write(linear.name, std::move(fetched),
                 [&entry](const FetchedLinear& written) { entry.scales = scales_of(written); });
}

void QuantizeRun::note_part(int64_t part) {
  const int64_t dropped = collector_.dropped_rows() - std::exchange(dropped_rows_, collector_.dropped_rows());
  output_->after_writes([this, part, dropped, entries = std::exchange(entries_, {})](Digests tensors) {
    Journal::Part done{.block = part, .tensors = std::move(tensors), .linears = {}, .dropped_rows = dropped};
    for (const LinearReport* entry : entries) done.linears.push_back(*entry);
    journal_->note(std::move(done), [this] { output_->flush(); });
  });
  finished_ = part + 1;
}

// States that cannot be saved cost time later, but not the result.
void QuantizeRun::save_states(int64_t block, const Quantization& quantization) {
  if (!saves_states_) return;
  const std::string name = states_file(block);
  const std::filesystem::path path = folder_->file(name);
  try {
    journal_->settle();  // the file that is replaced is no longer the last one noted
    Backend& backend = session_->team(block - 1).lead();
    const uint64_t digest = gptq::save_states(path, quantization.stores(), backend);
    journal_->note(Journal::States{block, name, digest}, [path] {
      const Descriptor file = open_regular(path);
      sync_file(*file, path);
    });
  } catch (const InputError& error) {
    saves_states_ = false;
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
    collector_.remark(Level::warning, cat(error.what(), ": states are not saved any more, so `resume` takes longer"));
  }
}

void QuantizeRun::restore_parts() {
  for (const Journal::Part& part : journal_->parts()) {
    if (!output_->keep(part.tensors)) break;
    collector_.restored(part.linears, part.dropped_rows);
    ++finished_;
  }
  dropped_rows_ = collector_.dropped_rows();
  journal_->begin(static_cast<size_t>(finished_));
  if (finished_ > 0) {
    collector_.remark(Level::message, cat("resume: ", std::min(finished_, blocks()), " of ", blocks(),
                                          " blocks are done, from an earlier run"));
  }
}

void QuantizeRun::restore_states(Quantization& quantization, int64_t longest) {
  const int64_t done = std::min(finished_, blocks());
  int64_t reached = 0;
  if (const auto& states = journal_->states()) {
    const bool found = in_stage(collector_, kEmbeddingStage, [&] {
      return gptq::restore_states(folder_->file(states->file), states->digest, quantization.stores(),
                                  session_->first());
    });
    if (found) reached = states->block;
  }
  if (reached == done) return;
  output_->wait_for_copies();
  const Checkpoint finished(folder_->model());
  DeviceSession session(finished, facts().placement, *devices_, facts().precision.computed, quantized_reader(finished),
                        StateOptions{});
  session.prepare(longest);
  quantization.replay(session, reached, done,
                      {.read_ahead = decision_.strategy.read_ahead, .at_boundary = {}, .stop = job_.stop});
}

double QuantizeRun::expected_work(const std::vector<TokenSequence>& sequences) const {
  const int64_t tokens = count_tokens(sequences);
  const bool two_streams = wants_original_states(job_.recipe);
  const auto of = [&](const std::vector<LinearSpec>& step) {
    double work = calibrates() ? sweep_work(step, tokens, two_streams) : 0;
    for (const LinearSpec& linear : step) work += layout_.is_quantized(linear) ? solve_work(linear) : 0;
    return work;
  };
  double work = 0;
  for (int64_t block = finished_; block < blocks(); ++block) {
    for (const auto& step : step_specs(facts().config, block)) work += of(step);
  }
  const LinearSpec head = head_spec(facts().config);
  if (finished_ <= blocks() && layout_.is_quantized(head)) work += of({head});
  if (calibrates()) work += replay_work(facts().config, std::min(finished_, blocks()), tokens) * (two_streams ? 2 : 1);
  return work;
}

void QuantizeRun::check_room() const {
  size_t bytes = static_cast<size_t>(layout_.output_bytes) + facts().checkpoint->side_bytes();
  folder_->check_room(bytes);
}

void QuantizeRun::finish_journal() {
  try {
    journal_->wait();
  } catch (const std::exception& error) {
    if (output_ && output_->flush_failed()) return;  // its finish() says so
    collector_.remark(Level::warning,
                      cat("the journal could not be written, so that this run could not be resumed: ", error.what()));
  }
}

Report QuantizeRun::compute() {
  // Checks that the output can be written before anything is computed, with the smallest possible layout.
  layout_ = chooses() ? lay_out(at_width(job_, facts().widths[0]), facts()) : std::move(setup_.layout);
  folder_.emplace(job_.output, job_.model, OutputFolder::Options{job_.overwrite, job_.resume});
  check_room();
  std::vector<TokenSequence> sequences;
  if (calibrates()) sequences = in_stage(collector_, kCalibrationStage, [&] { return read_calibration_data(); });
  journal_.emplace(folder_->file("journal"), fingerprint(job_, facts(), *devices_, sequences));
  collector_.store_with([this](const LinearSpec& linear, const Quantized& quantized, Backend& backend,
                               LinearReport& entry) { store(linear, quantized, backend, entry); });
  pool_.emplace(job_.threads);
  if (chooses()) {
    double work = expected_work(sequences);
    if (!journal_->measured()) work += probing_work(job_.recipe, facts(), sequences);
    collector_.expect(facts(), layout_, work);
    choose_bits(sequences);
    layout_ = lay_out(job_, facts());
    check_room();
  }
  output_.emplace(job_, facts(), layout_, session_->gate(), *folder_);
  restore_parts();
  if (!chooses() || finished_ > 0) collector_.expect(facts(), layout_, expected_work(sequences));
  const bool quantizes_head = layout_.is_quantized(head_spec(facts().config));
  const bool is_done = finished_ >= blocks() + (quantizes_head ? 1 : 0);
  saves_states_ = job_.checkpoint_states && calibrates();

  Quantization quantization(*session_, job_.recipe, collector_);
  if (calibrates() && !is_done)
    quantization.embed(make_batches(sequences, job_.batch_size, facts().batch_tokens), &*pool_);
  pool_.reset();
  in_stage(collector_, kPackStage, [&] { output_->carry_over(job_); });
  if (calibrates() && !is_done && finished_ > 0) {
    restore_states(quantization, static_cast<int64_t>(sequences[0].size()));
  }
  const auto at_boundary = [&](const Stop& stop) {
    note_part(stop.block);
    const bool states_follow = stop.block + 1 < blocks() || job_.recipe.lm_head;
    if (states_follow) save_states(stop.block + 1, quantization);
  };
  quantization.walk(blocks_between(finished_, blocks()),
                    {.read_ahead = decision_.strategy.read_ahead, .at_boundary = at_boundary});
  if (!is_done && quantization.head()) note_part(blocks());
  collector_.note_devices(devices_->opened());
  in_stage(collector_, kCommitStage, [&] {
    output_->wait_for_linears();
    finish_journal();  // its notes sync the shards, which finish() closes
    output_->finish();
    for (const std::string& remark : folder_->put_in_place()) collector_.remark(Level::warning, remark);
  });
  const int64_t spill_bytes = quantization.spill_bytes();
  quantization.drop_states();
  session_->close_model();
  collector_.trimmed("end", session_->trim());
  return collector_.finish(facts(), layout_, spill_bytes, output_->bytes());
}

}  // namespace gptq
