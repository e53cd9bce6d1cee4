// The statistics of a comparison of two models on one text.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "data/calibration.h"
#include "gptq/gptq.h"

namespace gptq {

// Rows of logits computed at a time.
inline constexpr int64_t kLogitRows = 256;

// Calls visit(first row, position, targets) for runs of at most kLogitRows rows that have a next token in their
// sequence, the last `most` of each sequence; position: that of the first target.
template <typename Visit>
void for_predictions(const std::vector<TokenSequence>& sequences, int64_t most, const Visit& visit) {
  int64_t start = 0;
  for (const TokenSequence& sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence.size());
    for (int64_t first = std::max<int64_t>(0, length - 1 - most); first + 1 < length; first += kLogitRows) {
      const int64_t count = std::min(kLogitRows, length - 1 - first);
      visit(start + first, first + 1, std::span(sequence).subspan(first + 1, count));
    }
    start += length;
  }
}

// Sums in double, in the order of the predictions.
class ComparisonSums {
 public:
  // Adds predictions of consecutive tokens of a window. `position`: that of the first predicted token in its window,
  // from
  // 1. The spans have one entry per token: both losses and KL(model || quantized) in nats, and 1 if both models have
  // the same most likely token, else 0.
  void add(int64_t position, std::span<const float> model_losses, std::span<const float> quantized_losses,
           std::span<const float> divergences, std::span<const float> same_top);

  // Requires at least one prediction. `seconds`: the time of both models together.
  Comparison result(const std::string& text, int64_t windows, double seconds) const;

 private:
  struct Position {
    int64_t windows = 0;
    double model_loss = 0, quantized_loss = 0, divergence = 0;
  };
  std::vector<Position> positions_;
  double model_loss_ = 0, quantized_loss_ = 0, divergence_ = 0, same_top_ = 0;
  double squared_changes_ = 0;      // of the loss of a token
  std::vector<float> divergences_;  // per token, for their percentile
};

// The loss in nats of each target, from its row of logits [n, vocabulary].
std::vector<float> losses_of(Backend& backend, ConstMatrixView logits, std::span<const int32_t> targets);

// Adds the predictions of `targets` by the logits of both models, [n, vocabulary]; `position` as in add().
void add_predictions(Backend& backend, ConstMatrixView model, ConstMatrixView quantized,
                     std::span<const int32_t> targets, int64_t position, ComparisonSums& sums);

}  // namespace gptq
