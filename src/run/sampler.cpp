#include "run/sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"

namespace gptq {
namespace {

struct Candidate {
  double weight = 0;  // in proportion to its probability
  int32_t token = 0;
};

bool is_less_likely(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight < b.weight : a.token > b.token;
}

}  // namespace

Sampler::Sampler(const Generation& generation)
    : temperature_(generation.temperature),
      top_p_(generation.top_p),
      top_k_(generation.top_k),
      state_(generation.seed) {}

// SplitMix64 (Steele, Lea and Flood 2014): the same numbers on every machine.
double Sampler::draw() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15U;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9U;
  z = (z ^ z >> 27) * 0x94d049bb133111ebU;
  return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-53;
}

int32_t Sampler::choose(std::span<const float> logits) {
  const auto top = std::max_element(logits.begin(), logits.end());
  if (!std::all_of(logits.begin(), logits.end(), [](float logit) { return !std::isnan(logit); }) ||
      !std::isfinite(*top))
    throw Error("the model's logits are no numbers: its weights, or the precision, are not fit for this text");
  if (temperature_ == 0) return static_cast<int32_t>(top - logits.begin());

  std::vector<Candidate> heap(logits.size());
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    heap[i] = {std::exp((static_cast<double>(logits[i]) - *top) / temperature_), static_cast<int32_t>(i)};
    total += heap[i].weight;
  }
  if (top_k_ == 0 && top_p_ == 1) {
    double left = draw() * total;
    for (const Candidate& candidate : heap) {
      if ((left -= candidate.weight) < 0) return candidate.token;
    }
    return static_cast<int32_t>(top - logits.begin());  // rounding has left something
  }

  // The most likely ones, in order.
  const size_t most = top_k_ == 0 ? heap.size() : std::min(heap.size(), static_cast<size_t>(top_k_));
  std::vector<Candidate> chosen;
  std::make_heap(heap.begin(), heap.end(), is_less_likely);
  double sum = 0;
  while (chosen.size() < most && (top_k_ > 0 || sum < top_p_ * total)) {
    std::pop_heap(heap.begin(), heap.end(), is_less_likely);
    chosen.push_back(heap.back());
    heap.pop_back();
    sum += chosen.back().weight;
  }
  if (top_k_ > 0) {  // top_p is a share of what top_k has left
    const double all = std::exchange(sum, 0);
    size_t kept = 0;
    while (kept < chosen.size() && sum < top_p_ * all) sum += chosen[kept++].weight;
    chosen.resize(kept);
  }
  double left = draw() * sum;
  for (const Candidate& candidate : chosen) {
    if ((left -= candidate.weight) < 0) return candidate.token;
  }
  return chosen.front().token;
}

}  // namespace gptq
