#include "run/comparison.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstdio>
#include <limits>

#include "base/error.h"

namespace gptq {
namespace {

Perplexity perplexity_of(double loss_sum, int64_t tokens, int64_t windows, double seconds) {
  const double mean = loss_sum / static_cast<double>(tokens);
  return {std::exp(mean), mean, tokens, windows, seconds};
}

// The smallest value that at least `share` of all values do not exceed; NaN if one of them is NaN, as NaN has no order.
double percentile(std::vector<float> values, double share) {
  if (std::any_of(values.begin(), values.end(), [](float value) { return std::isnan(value); }))
    return std::numeric_limits<double>::quiet_NaN();
  const auto rank = static_cast<int64_t>(std::ceil(share * static_cast<double>(values.size())));
  const auto at = values.begin() + std::max<int64_t>(rank - 1, 0);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

std::string percent(double change) {
  char text[32];
  std::snprintf(text, sizeof text, "%+.2f %%", 100 * std::expm1(change));
  return text;
}

}  // namespace

void ComparisonSums::add(int64_t position, std::span<const float> model_losses, std::span<const float> quantized_losses,
                         std::span<const float> divergences, std::span<const float> same_top) {
  const size_t count = model_losses.size(), first = static_cast<size_t>(position) - 1;
  assert(position >= 1 && quantized_losses.size() == count && divergences.size() == count && same_top.size() == count);
  positions_.resize(std::max(positions_.size(), first + count));
  divergences_.insert(divergences_.end(), divergences.begin(), divergences.end());
  for (size_t i = 0; i < count; ++i) {
    const double model = model_losses[i], quantized = quantized_losses[i], divergence = divergences[i];
    model_loss_ += model;
    quantized_loss_ += quantized;
    divergence_ += divergence;
    same_top_ += same_top[i];
    squared_changes_ += (quantized - model) * (quantized - model);
    Position& at = positions_[first + i];
    ++at.windows;
    at.model_loss += model;
    at.quantized_loss += quantized;
    at.divergence += divergence;
  }
}

Comparison ComparisonSums::result(const std::string& text, int64_t windows, double seconds) const {
  const auto tokens = static_cast<int64_t>(divergences_.size());
  assert(tokens > 0);
  const auto n = static_cast<double>(tokens);
  const double change = (quantized_loss_ - model_loss_) / n;
  Comparison comparison{.text = text,
                        .model = perplexity_of(model_loss_, tokens, windows, seconds),
                        .quantized = perplexity_of(quantized_loss_, tokens, windows, seconds),
                        .loss_change = change,
                        .mean_kl = divergence_ / n,
                        .kl_99 = percentile(divergences_, 0.99),
                        .max_kl = percentile(divergences_, 1),
                        .same_top = same_top_ / n};
  comparison.loss_change_error = std::sqrt(std::max(squared_changes_ / n - change * change, 0.0) / n);
  for (const Position& position : positions_) {
    const auto count = static_cast<double>(position.windows);
    comparison.positions.push_back({.windows = position.windows,
                                    .model_nll = position.model_loss / count,
                                    .quantized_nll = position.quantized_loss / count,
                                    .kl = position.divergence / count});
  }
  return comparison;
}

std::vector<float> losses_of(Backend& backend, ConstMatrixView logits, std::span<const int32_t> targets) {
  Matrix losses(backend, DType::f32, static_cast<int64_t>(targets.size()), 1);
  backend.run(ops::TokenLosses{.logits = logits, .targets = targets, .losses = losses});
  return to_host<float>(backend, losses);
}

void add_predictions(Backend& backend, ConstMatrixView model, ConstMatrixView quantized,
                     std::span<const int32_t> targets, int64_t position, ComparisonSums& sums) {
  const auto count = static_cast<int64_t>(targets.size());
  Matrix divergence(backend, DType::f32, count, 1), same_top(backend, DType::f32, count, 1);
  backend.run(ops::CompareLogits{.p = model, .q = quantized, .divergence = divergence, .same_top = same_top});
  sums.add(position, losses_of(backend, model, targets), losses_of(backend, quantized, targets),
           to_host<float>(backend, divergence), to_host<float>(backend, same_top));
}

std::string disagreement(const std::vector<Comparison>& comparisons) {
  constexpr double kClear = 0.02;  // nats: a perplexity 2 % higher
  constexpr double kTimes = 3, kErrors = 2;
  if (comparisons.empty()) return "";
  const auto [best, worst] =
      std::minmax_element(comparisons.begin(), comparisons.end(),
                          [](const auto& a, const auto& b) { return a.loss_change < b.loss_change; });
  const double error = std::hypot(best->loss_change_error, worst->loss_change_error);
  const bool differ = worst->loss_change >= kClear && worst->loss_change > kTimes * best->loss_change &&
                      worst->loss_change - best->loss_change > kErrors * error;
  if (!differ) return "";
  return cat("the texts disagree: perplexity changes by ", percent(worst->loss_change), " on ", worst->text, " but by ",
             percent(best->loss_change), " on ", best->text, "; do not judge this model by one of them");
}

}  // namespace gptq
