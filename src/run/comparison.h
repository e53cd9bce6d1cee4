// What a comparison of two models on one text adds up to.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gptq/gptq.h"

namespace gptq {

// Sums in double, in the order in which predictions come.
class ComparisonSums {
 public:
  // Predictions of neighbouring tokens of one window. `position`: of the first predicted token in its window, from 1.
  // The four columns have one entry a token: both losses and KL(model || quantized) in nats, and 1 where both have one
  // most likely token, 0 elsewhere.
  void add(int64_t position, std::span<const float> model_losses, std::span<const float> quantized_losses,
           std::span<const float> divergences, std::span<const float> same_top);

  // At least one prediction has been added. `seconds`: what both models took together.
  Comparison result(const std::string& text, int64_t windows, double seconds) const;

 private:
  struct Position {
    int64_t windows = 0;
    double model_loss = 0, quantized_loss = 0, divergence = 0;
  };
  std::vector<Position> positions_;
  double model_loss_ = 0, quantized_loss_ = 0, divergence_ = 0, same_top_ = 0;
  double squared_changes_ = 0;      // of a token's loss
  std::vector<float> divergences_;  // of all tokens, for their percentile
};

}  // namespace gptq
