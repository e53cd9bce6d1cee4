#include "run/final_check.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "format/format.h"
#include "run/comparison.h"
#include "run/replay.h"

namespace gptq {
namespace {

// Bytes that the original's logits may take until the other's are there.
constexpr int64_t kLogitBytes = int64_t{256} << 20;

// Passes on the stages and the work of a check as those of one stage. Its units and steps are not those of the run.
class CheckObserver final : public RunObserver {
 public:
  explicit CheckObserver(RunObserver& run) : run_(run) {}
  void begin_stage(const char* /*stage*/) override { run_.begin_stage(kCheckStage); }
  void end_stage() override { run_.end_stage(); }
  void worked(double multiply_adds) override { run_.worked(multiply_adds); }
  void begin_step(const std::vector<LinearSpec>& /*step*/) override {}
  void swept(const std::vector<LinearSpec>& /*step*/, int64_t /*tokens*/) override {}
  void solved_step(const std::vector<LinearSpec>& /*step*/, int64_t /*dropped_rows*/) override {}
  void solved(const LinearSpec& /*linear*/, const Quantized& /*quantized*/, const FactoredHessian* /*hessian*/,
              Backend& /*backend*/) override {}
  void begin_unit(const Placement::Unit& /*unit*/, int64_t /*block*/, Backend& /*backend*/) override {}
  void end_unit(int64_t /*sequences_at_once*/) override {}
  void trimmed(const std::string& /*when*/, const std::vector<Trimmed>& /*devices*/) override {}

 private:
  RunObserver& run_;
};

// How far pairs of matrices are apart: |a - b| relative to |b|.
class Distance {
 public:
  void add(const std::vector<float>& a, const std::vector<float>& b) {
    for (size_t i = 0; i < b.size(); ++i) {
      const double change = static_cast<double>(a[i]) - b[i];
      difference_ += change * change;
      norm_ += static_cast<double>(b[i]) * b[i];
    }
  }
  double relative() const { return std::sqrt(difference_ / std::max(norm_, 1e-30)); }

 private:
  double difference_ = 0, norm_ = 0;
};

double distance_of_states(StateStore& a, StateStore& b, Backend& backend) {
  const auto read = [&](StateStore& states, int64_t index) {
    std::vector<float> values;
    states.visit(index, backend, kOnlyLooks, [&](Batch& batch) {
      Matrix wide(backend, DType::f32, batch.residual.rows(), batch.residual.cols());
      backend.run(ops::Convert{.x = batch.residual, .y = wide});
      values = to_host<float>(backend, wide);
    });
    return values;
  };
  Distance distance;
  for (int64_t i = 0; i < a.batches(); ++i) distance.add(read(a, i), read(b, i));
  return distance.relative();
}

// Consecutive rows of a batch and the tokens that follow them.
struct RowRun {
  int64_t batch = 0, first = 0, position = 0;  // position: of the first target in its sequence
  std::vector<int32_t> targets;
};

// The last predictions of each sequence, as many as there is room for.
std::vector<RowRun> predictions(const std::vector<std::vector<TokenSequence>>& batches, int64_t vocabulary) {
  int64_t sequences = 0;
  for (const auto& batch : batches) sequences += static_cast<int64_t>(batch.size());
  const int64_t room = kLogitBytes / (vocabulary * static_cast<int64_t>(sizeof(float)));
  const int64_t most = std::max<int64_t>(1, room / std::max<int64_t>(sequences, 1));
  std::vector<RowRun> all;
  for (size_t b = 0; b < batches.size(); ++b) {
    for_predictions(batches[b], most, [&](int64_t row, int64_t position, std::span<const int32_t> targets) {
      all.push_back({static_cast<int64_t>(b), row, position, {targets.begin(), targets.end()}});
    });
  }
  return all;
}

// Calls visit(logits) with those of each of the rows. Only one head is in memory at a time.
template <typename Visit>
void for_logits(Session& session, StateStore& states, const std::vector<RowRun>& rows, const Visit& visit) {
  OutputHead& head = session.model().output_head();
  session.open_head();
  for (const RowRun& part : rows) {
    states.visit(part.batch, session.head(), kOnlyLooks, [&](Batch& batch) {
      visit(head.logits(batch, part.first, static_cast<int64_t>(part.targets.size())));
    });
  }
  head.drop();
}

Comparison compare_heads(Session& original, StateStore& originals, Session& output, StateStore& written,
                         const std::vector<RowRun>& rows) {
  std::vector<Matrix> of_original;
  for_logits(original, originals, rows, [&](Matrix logits) { of_original.push_back(std::move(logits)); });
  ComparisonSums sums;
  size_t done = 0;
  for_logits(output, written, rows, [&](const Matrix& logits) {
    const size_t i = done++;
    add_predictions(original.head(), of_original[i], logits, rows[i].targets, rows[i].position, sums);
  });
  return sums.result("", 1, 0);
}

// The output's head after the output's blocks, against the original's head after the blocks of the run.
double distance_of_logits(Session& original, StateStore& quantized, Session& output, StateStore& written,
                          const std::vector<RowRun>& rows) {
  constexpr size_t kFew = 32;
  RowRun few = rows.front();
  few.targets.resize(std::min(few.targets.size(), kFew));
  std::vector<float> expected, found;
  const auto read_to = [&](Session& session, std::vector<float>& values) {
    return [&](const Matrix& logits) { values = to_host<float>(session.head(), logits); };
  };
  for_logits(original, quantized, {few}, read_to(original, expected));
  for_logits(output, written, {few}, read_to(output, found));
  Distance distance;
  distance.add(found, expected);
  return distance.relative();
}

}  // namespace

WrittenModel::WrittenModel(const std::filesystem::path& folder, const Facts& facts, Devices& devices)
    : checkpoint(folder),
      session(checkpoint, facts.placement, devices, facts.precision.computed, quantized_reader(checkpoint),
              StateOptions{}) {}

double loss_of_frequencies(const std::vector<TokenSequence>& text,
                           const std::vector<std::vector<TokenSequence>>& batches, int64_t vocabulary) {
  std::map<int32_t, int64_t> counts;
  int64_t tokens = 0, predicted = 0;
  for (const TokenSequence& sequence : text) {
    for (const int32_t token : sequence) ++counts[token];
    tokens += static_cast<int64_t>(sequence.size());
  }
  double loss = 0;
  for (const auto& batch : batches) {
    for (const TokenSequence& sequence : batch) {
      for (size_t i = 1; i < sequence.size(); ++i, ++predicted) {
        const auto found = counts.find(sequence[i]);
        const int64_t count = 1 + (found == counts.end() ? 0 : found->second);
        loss -= std::log(static_cast<double>(count) / static_cast<double>(tokens + vocabulary));
      }
    }
  }
  return predicted == 0 ? 0 : loss / static_cast<double>(predicted);
}

Check check_output(HeldBack& held_back, Session& original, Session& output, const std::vector<Stop>& stops,
                   RunObserver& observer, bool keeps_head, const WalkOptions& options) {
  CheckObserver checking(observer);
  original.model().drop_ropes();  // only its head computes from here on
  const auto& batches = held_back.batches();
  StateStore written(StatePlace::device);
  in_stage(checking, kCheckStage, [&] {
    for (const auto& batch : batches) written.add(output.embed(batch, nullptr), output.first());
  });
  Replay(output, written, nullptr, checking).walk(stops, options);

  Check check;
  in_stage(checking, kCheckStage, [&] {
    check.difference = distance_of_states(written, held_back.quantized(), original.head());
    for (const auto& batch : batches) check.sequences += static_cast<int64_t>(batch.size());
    const ModelConfig& config = original.model().config();
    const std::vector<RowRun> rows = predictions(batches, config.vocabulary);
    if (!config.has_head || rows.empty()) return;
    if (keeps_head)
      check.difference =
          std::max(check.difference, distance_of_logits(original, held_back.quantized(), output, written, rows));
    const Comparison compared = compare_heads(original, held_back.originals(), output, written, rows);
    check.tokens = compared.model.predicted_tokens;
    check.model_nll = compared.model.mean_nll;
    check.quantized_nll = compared.quantized.mean_nll;
    check.mean_kl = compared.mean_kl;
    check.same_top = compared.same_top;
  });
  return check;
}

}  // namespace gptq
