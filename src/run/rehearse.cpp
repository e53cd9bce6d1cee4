#include "run/rehearse.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <utility>

#include "data/batches.h"
#include "format/format.h"
#include "plan/mixed_bits.h"
#include "quant/targets.h"
#include "run/counting_session.h"
#include "run/final_check.h"
#include "run/probe.h"
#include "run/quantize.h"

namespace gptq {
namespace {

// Allocates what the run's observer would, and sets the stages of devices.
class CountingObserver final : public RunObserver {
 public:
  CountingObserver(const Setup& setup, Memory& host)
      : format_(*setup.facts.format),
        layout_(setup.layout),
        host_(host),
        writes_behind_(writes_behind(setup.facts.placement)) {}
  void begin_stage(const char* stage) override { backend_->set_stage(stage); }
  void end_stage() override {}
  void begin_step(const std::vector<LinearSpec>& /*step*/) override {}
  void swept(const std::vector<LinearSpec>& /*step*/, int64_t /*tokens*/) override {}
  void solved_step(const std::vector<LinearSpec>& /*step*/, int64_t /*dropped_rows*/) override {}
  void worked(double /*multiply_adds*/) override {}
  void solved(const LinearSpec& linear, const Quantized& quantized, const FactoredHessian* /*hessian*/,
              Backend& backend) override {
    backend.set_stage(kPackStage);
    if (writes_.size() == writes_behind_) writes_.pop_front();
    FetchedLinear fetched = fetch(backend, quantized.codes, quantized.grid(), quantized.g_idx, host_);
    const int64_t packing = format_.encoding_bytes(linear, layout_.quantized.at(linear.name).recipe);
    writes_.push_back({std::move(fetched), Matrix(host_, DType::u8, 1, packing)});
  }
  void begin_unit(const Placement::Unit& /*unit*/, int64_t /*block*/, Backend& backend) override {
    backend_ = &backend;
  }
  void end_unit(int64_t /*sequences_at_once*/) override { writes_.clear(); }
  void trimmed(const std::string& /*when*/, const std::vector<Trimmed>& /*devices*/) override {}

 private:
  // A linear being packed and written while the next ones are solved.
  struct Write {
    FetchedLinear fetched;
    Matrix packed;
  };

  const Format& format_;
  const Layout& layout_;
  Memory& host_;
  const size_t writes_behind_;
  std::deque<Write> writes_;
  Backend* backend_ = nullptr;
};

std::vector<TokenSequence> blank_sequences(const Calibration& calibration) {
  return std::vector<TokenSequence>(static_cast<size_t>(calibration.samples),
                                    TokenSequence(static_cast<size_t>(calibration.sequence_length)));
}

// For the final check; empty without one.
std::vector<std::vector<TokenSequence>> blank_held_back(const Job& job, const Facts& facts, const Strategy& strategy) {
  if (!job.final_check || !strategy.checks) return {};
  return held_back_batches({.sequences = blank_sequences(facts.calibration), .held_back = {}}, facts.calibration,
                           job.batch_size, facts.batch_tokens);
}

// Embedding counts as part of the calibration stage, in which the host waits for it.
void count_embedding_as_calibration(Calls& calls) {
  for (const auto& [call, count] : calls[kEmbeddingStage]) calls[kCalibrationStage][call] += count;
  calls.erase(kEmbeddingStage);
}

Rehearsal rehearse_quantizing(const Job& job, const Setup& setup, const RehearsalOptions& options) {
  Rehearsal result;
  CountingSession session(setup.facts, options);
  CountingObserver observer(setup, session.host());
  {
    Quantization quantization(session, job.recipe, observer);
    if (job.recipe.method == Method::gptq) {
      const auto batches =
          make_batches(blank_sequences(setup.facts.calibration), job.batch_size, setup.facts.batch_tokens);
      int64_t batch_tokens = 0;
      for (const auto& batch : batches) {
        batch_tokens = std::max(batch_tokens, count_tokens(batch));
        result.tokens += count_tokens(batch);
        result.sequences += static_cast<int64_t>(batch.size());
      }
      auto held_back = blank_held_back(job, setup.facts, options.strategy);
      for (const auto& batch : held_back) result.held_back_tokens += count_tokens(batch);
      quantization.embed(batches, std::move(held_back), nullptr);
      session.take_buffers(batch_tokens, wants_original_states(job.recipe));
    }
    session.add_calls(1, result);
    int64_t moved = quantization.state_bytes_moved();
    const auto count = [&](const Stop& stop) {
      session.add_calls(stop.times, result);
      result.state_bytes_moved += (quantization.state_bytes_moved() - moved) * stop.times;
      moved = quantization.state_bytes_moved();
    };
    quantization.walk(session.one_of_each_kind(),
                      {.read_ahead = options.strategy.read_ahead, .at_boundary = count, .stop = job.stop});
    result.sequences_at_once = session.model().sequences_at_once();
    quantization.head();
    session.add_calls(1, result);
    if (HeldBack* held_back = quantization.held_back()) {
      check_output(*held_back, session, session, session.one_of_each_kind(), observer, !job.recipe.lm_head,
                   {.read_ahead = options.strategy.read_ahead, .at_boundary = count, .stop = job.stop});
      session.add_calls(1, result);
    }
  }
  count_embedding_as_calibration(result.calls);
  session.note_peaks(result);
  return result;
}

// Adds the pass that chooses bits: its calls, and its peaks if they are higher.
void rehearse_measuring(const Job& job, const Setup& setup, const RehearsalOptions& options, Rehearsal& result) {
  Rehearsal measuring;
  CountingSession session(setup.facts, options);
  CountingObserver observer(setup, session.host());
  {
    BitMeasurement measurement(session, job.recipe, setup.facts.widths,
                               measuring_batches(blank_sequences(setup.facts.calibration)), observer, nullptr);
    session.add_calls(1, measuring);
    // Memory for the probes of all other blocks, as the block adds its own. On average half of them exist.
    const ModelConfig& config = setup.facts.config;
    const auto steps = static_cast<int64_t>(step_specs(config, 0).size());
    measurement.add_probes(probed_widths(setup.facts.widths) * steps * (config.blocks - 1));
    session.prepare(setup.facts.calibration.sequence_length);
    session.trim();
    session.drop_calls();
    measurement.walk(session.one_of_each_kind(),
                     {.read_ahead = options.strategy.read_ahead,
                      .at_boundary = [&](const Stop& stop) { session.add_calls(stop.times, measuring); },
                      .stop = job.stop});
    for (auto& [call, count] : measuring.calls[kProbeStage]) count /= 2;
    measurement.read();
    session.add_calls(1, measuring);
  }
  count_embedding_as_calibration(measuring.calls);
  session.note_peaks(result);
  for (const auto& [stage, calls] : measuring.calls) {
    for (const auto& [call, count] : calls) result.calls[stage][call] += count;
  }
}

// If bits are chosen, the weights are divided between the two widths around the average.
Rehearsal rehearse_average(const Job& job, const Setup& setup, const RehearsalOptions& options) {
  const double share = share_of_least(setup.facts.widths, setup.facts.free_average);
  const Rehearsal least = rehearse_quantizing(at_width(job, setup.facts.widths[0]), setup, options);
  const Rehearsal next = rehearse_quantizing(at_width(job, setup.facts.widths[1]), setup, options);
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
  return setup.facts.widths.empty() ? rehearse_quantizing(job, setup, options) : rehearse_average(job, setup, options);
}

}  // namespace gptq
