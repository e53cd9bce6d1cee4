// Perplexity of a folder, comparison of two, token ids of a text, and a few words of greedy text. Blocks pass by one at
// a time, so a model never has to fit into memory whole.
#include <algorithm>
#include <cmath>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <span>

#include "base/background.h"
#include "base/error.h"
#include "base/resources.h"
#include "data/calibration.h"
#include "gptq/gptq.h"
#include "quant/format.h"
#include "run/comparison.h"
#include "run/setup.h"

namespace gptq {
namespace {

// Tokens whose states are kept at once; the weights are read once for each such round.
constexpr int64_t kRoundTokens = 65536;
// Rows of logits in memory at once.
constexpr int64_t kLogitRows = 256;

// Devices by name, opened when first asked for.
class Devices {
 public:
  Devices(const Resources& resources, int threads) : resources_(resources), threads_(threads) {}
  Backend& operator[](const std::string& name) {
    std::unique_ptr<Backend>& backend = backends_[name];
    if (!backend) {
      const int64_t limit = name == "cpu" ? 0 : resources_.limit_of(name);
      backend = open_backend(name, {.threads = threads_, .memory_bytes = limit});
    }
    return *backend;
  }

 private:
  const Resources& resources_;
  int threads_;
  std::map<std::string, std::unique_ptr<Backend>> backends_;
};

// A folder, plain or quantized, opened to run. Blocks pass by one at a time, the next one read ahead; where several
// rounds pass, those that have room stay: on their device, or in host memory where the map says cpu beside a device.
// Those on disk stream from the checkpoint every time.
class OpenModel {
 public:
  OpenModel(const std::string& folder, const std::string& device_map, const std::string& precision,
            const Resources& resources, Devices& devices, std::vector<Notice>& notices)
      : checkpoint_(folder), resources_(resources), devices_(devices) {
    const ModelConfig config = parse_model_config(checkpoint_);
    placement_ = placement_for_running(checkpoint_, config, device_map, resources, notices);
    const DType stored = stored_dtype(checkpoint_, config);
    Backend& backend = device(placement_.units.back());
    const Precision chosen = precision_of(stored, precision, backend);
    notices.push_back({Progress::Kind::message, message_of(chosen)});
    const bool quantized = !checkpoint_.quantization_config().is_null();
    model_ = std::make_unique<Model>(checkpoint_, backend, chosen.computed,
                                     quantized ? quantized_reader(checkpoint_) : WeightReader{});
  }

  const Checkpoint& checkpoint() const { return checkpoint_; }
  Model& model() { return *model_; }
  int64_t blocks() const { return model_->config().blocks; }
  Backend& head() { return device(placement_.units.back()); }

  std::unique_ptr<StateStore> embed(const std::vector<std::vector<TokenSequence>>& batches) {
    auto states = std::make_unique<StateStore>(StatePlace::device);
    Backend& backend = device(placement_.units.front());
    for (const auto& batch : batches) states->add(model_->embed(batch, backend), backend);
    return states;
  }

  // Brings the states through block `index`. `keep`: more rounds follow.
  void forward(int64_t index, StateStore& states, bool keep) {
    const Placement::Unit& unit = placement_.block(index);
    Backend& backend = device(unit);
    std::optional<Block> passing;
    const Block* block = nullptr;
    if (const auto found = staying_.find(index); found != staying_.end()) {
      block = &found->second;
    } else {
      StagedBlock staged = take(index);
      passing = model_->load_block(staged, backend);
      block = &*passing;
      if (keep && unit.visits && has_room("cpu", unit.bytes)) {
        on_host_.emplace(index, std::move(staged));
      } else if (keep && unit.stays == unit.computes_on && has_room(unit.stays, unit.bytes)) {
        block = &staying_.emplace(index, std::move(*passing)).first->second;
        passing.reset();
      }
    }
    states.for_each(backend, {}, [&](Batch& batch) { model_->forward(*block, batch); });
  }

 private:
  Backend& device(const Placement::Unit& unit) { return devices_[unit.computes_on]; }

  bool is_here(int64_t index) const { return staying_.count(index) != 0 || on_host_.count(index) != 0; }

  StagedBlock stage(int64_t index) {
    return model_->stage_block(index, device(placement_.block(index)).staging_memory());
  }

  StagedBlock take(int64_t index) {
    if (const auto found = on_host_.find(index); found != on_host_.end()) {
      StagedBlock staged = std::move(found->second);
      on_host_.erase(found);
      return staged;
    }
    StagedBlock staged = next_.valid() && next_index_ == index ? next_.get() : stage(index);
    next_index_ = (index + 1) % blocks();
    if (next_index_ != index && !is_here(next_index_))
      next_ = reader_.submit([this, following = next_index_] { return stage(following); });
    return staged;
  }

  // Half of a device's memory may hold weights that stay; they take up to twice their stored size when widened.
  bool has_room(const std::string& device, int64_t bytes) {
    int64_t& used = staying_bytes_[device];
    const int64_t limit = resources_.limit_of(device);
    if (limit > 0 && used + 2 * bytes > limit / 2) return false;
    used += 2 * bytes;
    return true;
  }

  Checkpoint checkpoint_;
  const Resources& resources_;
  Devices& devices_;
  Placement placement_;
  std::unique_ptr<Model> model_;
  std::map<int64_t, Block> staying_;
  std::map<int64_t, StagedBlock> on_host_;
  std::map<std::string, int64_t> staying_bytes_;
  int64_t next_index_ = -1;
  std::future<StagedBlock> next_;
  BackgroundWorker reader_;  // last: it uses all of the above
};

void tell(const std::vector<Notice>& notices, const ProgressFunction& progress) {
  for (const Notice& notice : notices) {
    if (progress) progress({.kind = notice.kind, .text = notice.text});
  }
}

// Shares of an evaluation's work, told block by block.
class Rounds {
 public:
  Rounds(const Evaluation& evaluation, const ProgressFunction& progress, int64_t steps)
      : evaluation_(evaluation), progress_(progress), steps_(steps) {}
  void check_stop() const {
    if (evaluation_.stop.stop_requested()) throw Cancelled();
  }
  void step(int64_t block, int64_t blocks, int64_t tokens) {
    ++done_;
    tokens_ += static_cast<double>(tokens) / static_cast<double>(blocks);
    if (!progress_) return;
    Progress progress{.text = "forward",
                      .block = block,
                      .blocks = blocks,
                      .fraction = static_cast<double>(done_) / static_cast<double>(steps_)};
    progress.seconds = watch_.seconds();
    progress.remaining_seconds = progress.seconds * (1 / progress.fraction - 1);
    progress.tokens_per_second = tokens_ / progress.seconds;
    progress.memory_bytes = resident_bytes();
    progress_(progress);
  }

 private:
  const Evaluation& evaluation_;
  const ProgressFunction& progress_;
  const Stopwatch watch_;
  int64_t steps_ = 1, done_ = 0;
  double tokens_ = 0;
};

std::vector<std::vector<TokenSequence>> rounds_of(const std::vector<TokenSequence>& windows) {
  std::vector<std::vector<TokenSequence>> rounds;
  int64_t tokens = kRoundTokens;
  for (const TokenSequence& window : windows) {
    if (tokens >= kRoundTokens) {
      rounds.emplace_back();
      tokens = 0;
    }
    rounds.back().push_back(window);
    tokens += static_cast<int64_t>(window.size());
  }
  return rounds;
}

// The states of one round after all blocks.
std::unique_ptr<StateStore> run_blocks(OpenModel& opened, const std::vector<std::vector<TokenSequence>>& batches,
                                       bool keep, Rounds& rounds) {
  std::unique_ptr<StateStore> states = opened.embed(batches);
  int64_t tokens = 0;
  for (const auto& batch : batches) {
    for (const TokenSequence& sequence : batch) tokens += static_cast<int64_t>(sequence.size());
  }
  for (int64_t index = 0; index < opened.blocks(); ++index) {
    rounds.check_stop();
    opened.forward(index, *states, keep);
    rounds.step(index, opened.blocks(), tokens);
  }
  return states;
}

// Calls visit(first row, position, targets) for runs of at most kLogitRows rows that have a next token in their
// sequence; position: of the first target in its sequence.
template <typename Visit>
void for_predictions(const std::vector<TokenSequence>& sequences, const Visit& visit) {
  int64_t start = 0;
  for (const TokenSequence& sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence.size());
    for (int64_t first = 0; first + 1 < length; first += kLogitRows) {
      const int64_t count = std::min(kLogitRows, length - 1 - first);
      visit(start + first, first + 1, std::span(sequence).subspan(first + 1, count));
    }
    start += length;
  }
}

std::vector<float> losses_of(Backend& backend, ConstMatrixView logits, std::span<const int32_t> targets) {
  Matrix losses(backend, DType::f32, static_cast<int64_t>(targets.size()), 1);
  backend.run(ops::TokenLosses{.logits = logits, .targets = targets, .losses = losses});
  return to_host<float>(backend, losses);
}

// A text's windows, in the rounds in which they pass.
struct Text {
  std::string file;
  int64_t windows = 0;
  std::vector<std::vector<TokenSequence>> rounds;
};

// All texts are read before the first one is evaluated: one that cannot be read ends the work before it begins.
std::vector<Text> texts_of(const Evaluation& evaluation, const Checkpoint& checkpoint, int64_t context) {
  std::vector<Text> texts;
  for (const std::string& file : evaluation.texts) {
    const std::vector<TokenSequence> windows =
        read_windows({file, tokenizer_of(checkpoint.folder())}, context, evaluation.windows);
    texts.push_back({file, static_cast<int64_t>(windows.size()), rounds_of(windows)});
  }
  return texts;
}

int64_t count_rounds(const std::vector<Text>& texts) {
  int64_t count = 0;
  for (const Text& text : texts) count += static_cast<int64_t>(text.rounds.size());
  return count;
}

// Says which text follows, where there are several.
void tell_text(const Text& text, const std::vector<Text>& texts, const ProgressFunction& progress) {
  if (texts.size() == 1 || !progress) return;
  progress({.kind = Progress::Kind::message,
            .text = cat("text ", &text - texts.data() + 1, " of ", texts.size(), ": ", text.file)});
}

void check(const Evaluation& evaluation) {
  if (evaluation.windows < 0)
    throw InputError(cat("--windows ", evaluation.windows, ": give a positive number, or 0 for all"));
  if (evaluation.texts.empty()) throw InputError("there is no text to evaluate on: give --text FILE");
  if (std::count(evaluation.texts.begin(), evaluation.texts.end(), "-") > 1)
    throw InputError("--text - is given twice, but stdin can be read only once: put one of the texts into a file");
}

// Tokens in a window, checked.
int64_t context_of(const Evaluation& evaluation, const ModelConfig& config, const ProgressFunction& progress) {
  const int64_t positions = config.max_positions, context = evaluation.context;
  if (context == 0) return std::min<int64_t>(2048, positions);
  if (context < 2) throw InputError(cat("--context ", context, ": a window needs at least 2 tokens to predict one"));
  if (context > positions && progress) {
    progress({.kind = Progress::Kind::warning,
              .text = cat("--context ", context, " is longer than the ", positions,
                          " positions that the model was made for")});
  }
  return context;
}

}  // namespace

std::vector<Perplexity> perplexity(const Evaluation& evaluation, const ProgressFunction& progress) {
  check(evaluation);
  const Resources resources = find_resources(evaluation.max_memory);
  Devices devices(resources, evaluation.threads);
  std::vector<Notice> notices;
  OpenModel opened(evaluation.model, evaluation.device_map, evaluation.precision, resources, devices, notices);
  tell(notices, progress);
  const std::vector<Text> texts =
      texts_of(evaluation, opened.checkpoint(), context_of(evaluation, opened.model().config(), progress));
  const int64_t round_count = count_rounds(texts);
  Rounds rounds(evaluation, progress, round_count * opened.blocks());
  std::vector<Perplexity> results;
  for (const Text& text : texts) {
    tell_text(text, texts, progress);
    const Stopwatch watch;
    double loss = 0;
    int64_t tokens = 0;
    for (const auto& round : text.rounds) {
      const auto batches = make_batches(round, 0, opened.head().batch_tokens(opened.model().dtype()));
      const auto states = run_blocks(opened, batches, round_count > 1, rounds);
      for (size_t b = 0; b < batches.size(); ++b) {
        const Batch& batch = states->at(static_cast<int64_t>(b), opened.head());
        for_predictions(batches[b], [&](int64_t row, int64_t /*position*/, std::span<const int32_t> targets) {
          rounds.check_stop();
          const auto count = static_cast<int64_t>(targets.size());
          const auto losses = losses_of(opened.head(), opened.model().logits(batch, row, count), targets);
          loss = std::accumulate(losses.begin(), losses.end(), loss);
          tokens += count;
        });
      }
    }
    const double mean = loss / static_cast<double>(tokens);
    results.push_back({std::exp(mean), mean, tokens, text.windows, watch.seconds()});
  }
  return results;
}

std::vector<Comparison> compare(const Evaluation& evaluation, const std::string& quantized,
                                const ProgressFunction& progress) {
  check(evaluation);
  const Resources resources = find_resources(evaluation.max_memory);
  Devices devices(resources, evaluation.threads);
  std::vector<Notice> notices, of_second;
  OpenModel first(evaluation.model, evaluation.device_map, evaluation.precision, resources, devices, notices);
  OpenModel second(quantized, evaluation.device_map, evaluation.precision, resources, devices, of_second);
  tell(notices, progress);
  const int64_t vocabulary = first.model().config().vocabulary;
  if (vocabulary != second.model().config().vocabulary) {
    throw InputError(cat(evaluation.model, " has a vocabulary of ", vocabulary, " tokens and ", quantized, " one of ",
                         second.model().config().vocabulary, ": only models of one vocabulary can be compared"));
  }
  const std::vector<Text> texts =
      texts_of(evaluation, first.checkpoint(), context_of(evaluation, first.model().config(), progress));
  const int64_t round_count = count_rounds(texts);
  Rounds rounds(evaluation, progress, round_count * (first.blocks() + second.blocks()));
  Backend& head = first.head();
  std::vector<Comparison> results;
  for (const Text& text : texts) {
    tell_text(text, texts, progress);
    const Stopwatch watch;
    ComparisonSums sums;
    for (const auto& round : text.rounds) {
      const auto batches = make_batches(round, 0, head.batch_tokens(first.model().dtype()));
      const auto first_states = run_blocks(first, batches, round_count > 1, rounds);
      const auto second_states = run_blocks(second, batches, round_count > 1, rounds);
      for (size_t b = 0; b < batches.size(); ++b) {
        const Batch& first_batch = first_states->at(static_cast<int64_t>(b), head);
        const Batch& second_batch = second_states->at(static_cast<int64_t>(b), head);
        for_predictions(batches[b], [&](int64_t row, int64_t position, std::span<const int32_t> targets) {
          rounds.check_stop();
          const auto count = static_cast<int64_t>(targets.size());
          const Matrix p = first.model().logits(first_batch, row, count),
                       q = second.model().logits(second_batch, row, count);
          Matrix divergence(head, DType::f32, count, 1), same_top(head, DType::f32, count, 1);
          head.run(ops::CompareLogits{.p = p, .q = q, .divergence = divergence, .same_top = same_top});
          sums.add(position, losses_of(head, p, targets), losses_of(head, q, targets), to_host<float>(head, divergence),
                   to_host<float>(head, same_top));
        });
      }
    }
    results.push_back(sums.result(text.file, text.windows, watch.seconds()));
  }
  return results;
}

std::vector<TokenSequence> tokenize(const std::string& model, const std::string& text) {
  return read_documents({text, tokenizer_of(model)});
}

std::string generate(const std::string& model, const std::string& prompt, int64_t tokens, int threads) {
  const Resources resources = find_resources("");
  Devices devices(resources, threads);
  std::vector<Notice> notices;
  OpenModel opened(model, "", "auto", resources, devices, notices);
  const Tokenizer tokenizer(opened.checkpoint().folder());
  std::vector<TokenSequence> sequence{tokenizer.encode(prompt)};
  if (sequence[0].empty()) throw InputError("the prompt is empty");
  for (int64_t i = 0; i < tokens; ++i) {
    const auto states = opened.embed({sequence});
    for (int64_t index = 0; index < opened.blocks(); ++index) opened.forward(index, *states, true);
    const Batch& batch = states->at(0, opened.head());
    const Matrix logits = opened.model().logits(batch, batch.tokens() - 1, 1);
    const std::vector<float> row = to_host<float>(opened.head(), logits);
    sequence[0].push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
  }
  return tokenizer.decode(sequence[0]);
}

}  // namespace gptq
