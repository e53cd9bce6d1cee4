// Perplexity of a folder, comparison of two, token ids of a text, and a few words of greedy text. Blocks pass by one at
// a time, so a model never has to fit into memory whole.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <span>

#include "base/error.h"
#include "base/resources.h"
#include "data/calibration.h"
#include "gptq/gptq.h"
#include "quant/format.h"
#include "run/pipeline.h"

namespace gptq {
namespace {

// Tokens whose states are kept at once; the weights are read once for each such round.
constexpr int64_t kRoundTokens = 65536;
// Rows of logits in memory at once.
constexpr int64_t kLogitRows = 256;

// A folder, plain or quantized, opened to run. Everything in it points at what stands above it.
struct OpenModel {
  OpenModel(const std::string& folder, Backend& backend) : checkpoint(folder) {
    const bool quantized = !checkpoint.quantization_config().is_null();
    model = std::make_unique<Model>(checkpoint, backend, backend.compute_dtype(DType::f32),
                                    quantized ? quantized_reader(checkpoint, backend) : WeightReader{});
  }
  Checkpoint checkpoint;
  std::unique_ptr<Model> model;
};

using TokenizerSource = std::function<const Tokenizer&()>;

TokenizerSource tokenizer_of(const Checkpoint& checkpoint, std::unique_ptr<Tokenizer>& slot) {
  return [&]() -> const Tokenizer& {
    if (!slot) slot = std::make_unique<Tokenizer>(checkpoint.folder());
    return *slot;
  };
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

// The batches of one round after all blocks.
std::vector<Batch> run_blocks(Model& model, const std::vector<std::vector<TokenSequence>>& batches, Rounds& rounds) {
  std::vector<Batch> states;
  for (const auto& batch : batches) states.push_back(model.embed(batch));
  const int64_t blocks = model.config().blocks;
  for (int64_t index = 0; index < blocks; ++index) {
    const Block block = model.load_block(index);
    int64_t tokens = 0;
    for (Batch& state : states) {
      rounds.check_stop();
      model.forward(block, state);
      tokens += state.tokens();
    }
    rounds.step(index, blocks, tokens);
  }
  return states;
}

// Calls visit(first row, targets) for runs of at most kLogitRows rows that have a next token in their sequence.
template <typename Visit>
void for_predictions(const std::vector<TokenSequence>& sequences, const Visit& visit) {
  int64_t start = 0;
  for (const TokenSequence& sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence.size());
    for (int64_t first = 0; first + 1 < length; first += kLogitRows) {
      const int64_t count = std::min(kLogitRows, length - 1 - first);
      visit(start + first, std::span(sequence).subspan(first + 1, count));
    }
    start += length;
  }
}

struct Losses {
  double sum = 0;
  int64_t tokens = 0;
  void add(Backend& backend, ConstMatrixView logits, std::span<const int32_t> targets) {
    Matrix losses(backend, DType::f32, static_cast<int64_t>(targets.size()), 1);
    backend.token_losses(logits, targets, losses);
    const std::vector<float> values = to_host<float>(backend, losses);
    sum = std::accumulate(values.begin(), values.end(), sum);
    tokens += static_cast<int64_t>(values.size());
  }
  Perplexity result(int64_t windows, double seconds) const {
    const double mean = sum / static_cast<double>(tokens);
    return {std::exp(mean), mean, tokens, windows, seconds};
  }
};

std::vector<TokenSequence> windows_of(const Evaluation& evaluation, const Checkpoint& checkpoint, int64_t context) {
  std::unique_ptr<Tokenizer> tokenizer;
  return read_windows({evaluation.text, tokenizer_of(checkpoint, tokenizer)}, context, evaluation.windows);
}

void check(const Evaluation& evaluation) {
  if (evaluation.windows < 0)
    throw InputError(cat("--windows ", evaluation.windows, ": give a positive number, or 0 for all"));
}

// Tokens in a window, checked.
int64_t context_of(const Evaluation& evaluation, const Model& model, const ProgressFunction& progress) {
  const int64_t positions = model.config().max_positions, context = evaluation.context;
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

Perplexity perplexity(const Evaluation& evaluation, const ProgressFunction& progress) {
  const Stopwatch watch;
  check(evaluation);
  const std::unique_ptr<Backend> backend = open_backend("cpu", {.threads = evaluation.threads});
  OpenModel opened(evaluation.model, *backend);
  const std::vector<TokenSequence> windows =
      windows_of(evaluation, opened.checkpoint, context_of(evaluation, *opened.model, progress));
  const auto all_rounds = rounds_of(windows);
  Rounds rounds(evaluation, progress, static_cast<int64_t>(all_rounds.size()) * opened.model->config().blocks);
  Losses losses;
  for (const auto& round : all_rounds) {
    const auto batches = make_batches(round, 0);
    const std::vector<Batch> states = run_blocks(*opened.model, batches, rounds);
    for (size_t b = 0; b < batches.size(); ++b) {
      for_predictions(batches[b], [&](int64_t first, std::span<const int32_t> targets) {
        rounds.check_stop();
        losses.add(*backend, opened.model->logits(states[b], first, static_cast<int64_t>(targets.size())), targets);
      });
    }
  }
  return losses.result(static_cast<int64_t>(windows.size()), watch.seconds());
}

Comparison compare(const Evaluation& evaluation, const std::string& quantized, const ProgressFunction& progress) {
  const Stopwatch watch;
  check(evaluation);
  const std::unique_ptr<Backend> backend = open_backend("cpu", {.threads = evaluation.threads});
  OpenModel first(evaluation.model, *backend), second(quantized, *backend);
  const int64_t vocabulary = first.model->config().vocabulary;
  if (vocabulary != second.model->config().vocabulary) {
    throw InputError(cat(evaluation.model, " has a vocabulary of ", vocabulary, " tokens and ", quantized, " one of ",
                         second.model->config().vocabulary, ": only models of one vocabulary can be compared"));
  }
  const std::vector<TokenSequence> windows =
      windows_of(evaluation, first.checkpoint, context_of(evaluation, *first.model, progress));
  const auto all_rounds = rounds_of(windows);
  Rounds rounds(
      evaluation, progress,
      static_cast<int64_t>(all_rounds.size()) * (first.model->config().blocks + second.model->config().blocks));
  Losses first_losses, second_losses;
  double divergence_sum = 0, same_sum = 0;
  for (const auto& round : all_rounds) {
    const auto batches = make_batches(round, 0);
    const std::vector<Batch> first_states = run_blocks(*first.model, batches, rounds);
    const std::vector<Batch> second_states = run_blocks(*second.model, batches, rounds);
    for (size_t b = 0; b < batches.size(); ++b) {
      for_predictions(batches[b], [&](int64_t row, std::span<const int32_t> targets) {
        rounds.check_stop();
        const auto count = static_cast<int64_t>(targets.size());
        const Matrix p = first.model->logits(first_states[b], row, count),
                     q = second.model->logits(second_states[b], row, count);
        first_losses.add(*backend, p, targets);
        second_losses.add(*backend, q, targets);
        Matrix divergence(*backend, DType::f32, count, 1), same_top(*backend, DType::f32, count, 1);
        backend->compare_logits(p, q, divergence, same_top);
        const auto divergences = to_host<float>(*backend, divergence), same = to_host<float>(*backend, same_top);
        divergence_sum = std::accumulate(divergences.begin(), divergences.end(), divergence_sum);
        same_sum = std::accumulate(same.begin(), same.end(), same_sum);
      });
    }
  }
  const auto count = static_cast<int64_t>(windows.size());
  const auto tokens = static_cast<double>(first_losses.tokens);
  return {first_losses.result(count, watch.seconds()), second_losses.result(count, watch.seconds()),
          divergence_sum / tokens, same_sum / tokens};
}

std::vector<TokenSequence> tokenize(const std::string& model, const std::string& text) {
  std::unique_ptr<Tokenizer> tokenizer;
  return read_documents({text, [&]() -> const Tokenizer& {
                           if (!tokenizer) tokenizer = std::make_unique<Tokenizer>(model);
                           return *tokenizer;
                         }});
}

std::string generate(const std::string& model, const std::string& prompt, int64_t tokens, int threads) {
  const std::unique_ptr<Backend> backend = open_backend("cpu", {.threads = threads});
  OpenModel opened(model, *backend);
  const Tokenizer tokenizer(opened.checkpoint.folder());
  std::vector<TokenSequence> sequence{tokenizer.encode(prompt)};
  if (sequence[0].empty()) throw InputError("the prompt is empty");
  std::vector<Block> blocks;
  for (int64_t index = 0; index < opened.model->config().blocks; ++index)
    blocks.push_back(opened.model->load_block(index));
  for (int64_t i = 0; i < tokens; ++i) {
    Batch batch = opened.model->embed(sequence);
    for (const Block& block : blocks) opened.model->forward(block, batch);
    const Matrix logits = opened.model->logits(batch, batch.tokens() - 1, 1);
    const std::vector<float> row = to_host<float>(*backend, logits);
    sequence[0].push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
  }
  return tokenizer.decode(sequence[0]);
}

}  // namespace gptq
