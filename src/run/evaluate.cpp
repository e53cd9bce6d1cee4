// Perplexity of a folder, and comparison of two. Texts are processed in rounds whose states fit into memory.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <span>

#include "base/error.h"
#include "base/resources.h"
#include "base/stopwatch.h"
#include "data/batches.h"
#include "gptq/gptq.h"
#include "recipe/option.h"
#include "run/comparison.h"
#include "run/forward.h"

namespace gptq {
namespace {

// Tokens per round; the weights are read once per round.
constexpr int64_t kRoundTokens = 65536;

void tell(const Listener& listener, Level level, const std::string& text) {
  if (listener.on_message) listener.on_message(level, text);
}

void tell(const std::vector<Notice>& notices, const Listener& listener) {
  for (const Notice& notice : notices) tell(listener, notice.level, notice.text);
}

// Reports the progress of an evaluation, block by block.
class Rounds {
 public:
  Rounds(const Listener& listener, int64_t steps) : listener_(listener), steps_(steps) {}
  void step(int64_t block, int64_t blocks, int64_t tokens) {
    ++done_;
    tokens_ += static_cast<double>(tokens) / static_cast<double>(blocks);
    if (!listener_.on_progress) return;
    Progress progress{.text = "forward",
                      .block = block,
                      .blocks = blocks,
                      .fraction = static_cast<double>(done_) / static_cast<double>(steps_)};
    progress.seconds = watch_.seconds();
    progress.remaining_seconds = progress.seconds * (1 / progress.fraction - 1);
    progress.tokens_per_second = tokens_ / progress.seconds;
    progress.memory_bytes = resident_bytes();
    listener_.on_progress(progress);
  }

 private:
  const Listener& listener_;
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

// The states of a round after all blocks.
std::unique_ptr<StateStore> run_blocks(OpenModel& opened, const std::vector<std::vector<TokenSequence>>& batches,
                                       bool keep, Rounds& rounds) {
  int64_t tokens = 0;
  for (const auto& batch : batches) tokens += count_tokens(batch);
  return opened.forward(batches, keep, [&](const Stop& stop) { rounds.step(stop.block, opened.blocks(), tokens); });
}

// A text's windows, grouped in rounds.
struct Text {
  std::string file;
  int64_t windows = 0;
  std::vector<std::vector<TokenSequence>> rounds;
};

// Reads all texts before the first one is evaluated, so that errors in texts show first.
std::vector<Text> texts_of(const Evaluation& evaluation, const Checkpoint& checkpoint, int64_t context) {
  std::vector<Text> texts;
  for (const std::string& file : evaluation.texts) {
    const std::vector<TokenSequence> windows = read_windows({.file = file,
                                                             .tokenizer = tokenizer_of(checkpoint.folder()),
                                                             .key = evaluation.text_key,
                                                             .key_option = "text_key"},
                                                            context, evaluation.windows);
    texts.push_back({file, static_cast<int64_t>(windows.size()), rounds_of(windows)});
  }
  return texts;
}

int64_t count_rounds(const std::vector<Text>& texts) {
  int64_t count = 0;
  for (const Text& text : texts) count += static_cast<int64_t>(text.rounds.size());
  return count;
}

// Announces the next text if there are several.
void tell_text(const Text& text, const std::vector<Text>& texts, const Listener& listener) {
  if (texts.size() == 1) return;
  tell(listener, Level::message, cat("text ", &text - texts.data() + 1, " of ", texts.size(), ": ", text.file));
}

void check(const Evaluation& evaluation) {
  check_ranges(evaluation);
  if (evaluation.texts.empty()) throw InputError("there is no text to evaluate on: give `text` FILE");
  if (std::count(evaluation.texts.begin(), evaluation.texts.end(), "-") > 1)
    throw InputError("`text` - is given twice, but stdin can be read only once: put one of the texts into a file");
}

// The checked number of tokens in a window.
int64_t context_of(const Evaluation& evaluation, const ModelConfig& config, const Listener& listener) {
  const int64_t positions = config.max_positions, context = evaluation.context;
  if (context == 0) return std::min<int64_t>(2048, positions);
  if (context > positions) {
    tell(listener, Level::warning,
         cat("`context` ", context, " is longer than the ", positions, " positions that the model was made for"));
  }
  return context;
}

}  // namespace

std::vector<Perplexity> perplexity(const Evaluation& evaluation, const Listener& listener) {
  check(evaluation);
  const Resources resources = find_resources(evaluation.max_memory);
  Devices devices(resources, evaluation.threads);
  std::vector<Notice> notices;
  OpenModel opened(evaluation.model, evaluation, resources, devices, notices);
  tell(notices, listener);
  const std::vector<Text> texts =
      texts_of(evaluation, opened.checkpoint(), context_of(evaluation, opened.model().config(), listener));
  const int64_t round_count = count_rounds(texts);
  Rounds rounds(listener, round_count * opened.blocks());
  std::vector<Perplexity> results;
  for (const Text& text : texts) {
    tell_text(text, texts, listener);
    const Stopwatch watch;
    double loss = 0;
    int64_t tokens = 0;
    for (const auto& round : text.rounds) {
      const auto batches = make_batches(round, 0, opened.head().batch_tokens(opened.model().dtype()));
      const auto states = run_blocks(opened, batches, round_count > 1, rounds);
      for (size_t b = 0; b < batches.size(); ++b) {
        const Batch& batch = states->at(static_cast<int64_t>(b), opened.head());
        for_predictions(batches[b], INT64_MAX,
                        [&](int64_t row, int64_t /*position*/, std::span<const int32_t> targets) {
                          check_stop(evaluation.stop);
                          const auto count = static_cast<int64_t>(targets.size());
                          const auto losses =
                              losses_of(opened.head(), opened.model().output_head().logits(batch, row, count), targets);
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

std::vector<Comparison> compare(const Evaluation& evaluation, const std::string& quantized, const Listener& listener) {
  check(evaluation);
  const Resources resources = find_resources(evaluation.max_memory);
  Devices devices(resources, evaluation.threads);
  std::vector<Notice> notices, of_second;
  OpenModel first(evaluation.model, evaluation, resources, devices, notices);
  OpenModel second(quantized, evaluation, resources, devices, of_second);
  tell(notices, listener);
  for (const Notice& notice : of_second) {
    if (notice.level == Level::warning) tell(listener, notice.level, notice.text);
  }
  const int64_t vocabulary = first.model().config().vocabulary;
  if (vocabulary != second.model().config().vocabulary) {
    throw InputError(cat(evaluation.model, " has a vocabulary of ", vocabulary, " tokens and ", quantized, " one of ",
                         second.model().config().vocabulary, ": only models of one vocabulary can be compared"));
  }
  const std::vector<Text> texts =
      texts_of(evaluation, first.checkpoint(), context_of(evaluation, first.model().config(), listener));
  const int64_t round_count = count_rounds(texts);
  Rounds rounds(listener, round_count * (first.blocks() + second.blocks()));
  Backend& head = first.head();
  std::vector<Comparison> results;
  for (const Text& text : texts) {
    tell_text(text, texts, listener);
    const Stopwatch watch;
    ComparisonSums sums;
    for (const auto& round : text.rounds) {
      const auto batches = make_batches(round, 0, head.batch_tokens(first.model().dtype()));
      const auto first_states = run_blocks(first, batches, round_count > 1, rounds);
      const auto second_states = run_blocks(second, batches, round_count > 1, rounds);
      for (size_t b = 0; b < batches.size(); ++b) {
        const Batch& first_batch = first_states->at(static_cast<int64_t>(b), head);
        const Batch& second_batch = second_states->at(static_cast<int64_t>(b), head);
        for_predictions(batches[b], INT64_MAX, [&](int64_t row, int64_t position, std::span<const int32_t> targets) {
          check_stop(evaluation.stop);
          const auto count = static_cast<int64_t>(targets.size());
          const Matrix p = first.model().output_head().logits(first_batch, row, count),
                       q = second.model().output_head().logits(second_batch, row, count);
          add_predictions(head, p, q, targets, position, sums);
        });
      }
    }
    results.push_back(sums.result(text.file, text.windows, watch.seconds()));
  }
  return results;
}

}  // namespace gptq
