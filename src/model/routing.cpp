#include "model/routing.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace gptq {
namespace {

// Chooses the experts of one token; its buffers are reused for the next.
class Chooser {
 public:
  Chooser(const std::vector<float>& choice_bias, const ExpertRow& row, const Experts& experts)
      : choice_bias_(choice_bias), row_(row), experts_(experts), scores_(static_cast<size_t>(experts.count)) {}

  std::vector<int32_t> chosen;
  std::vector<float> weights;

  void choose(const float* logits) {
    if (row_.kind == RouterKind::sparse_mixer) return mix_sparsely(logits);
    // Renormalized weights depend on the chosen experts only.
    const bool only_chosen =
        row_.kind == RouterKind::softmax && experts_.renormalized && choice_bias_.empty() && experts_.groups == 1;
    scores_.assign(logits, logits + experts_.count);
    preferred_ = scores_;
    if (!only_chosen) row_.kind == RouterKind::softmax ? softmax(scores_) : sigmoid(scores_);
    if (!row_.biases_logits) preferred_ = scores_;
    for (size_t expert = 0; expert < choice_bias_.size(); ++expert) preferred_[expert] += choice_bias_[expert];
    if (experts_.groups > 1) keep_best_groups();
    take_largest(preferred_, experts_.chosen, chosen);
    weights.clear();
    for (const int32_t expert : chosen) weights.push_back(scores_[expert]);
    if (only_chosen) softmax(weights);
    float share = experts_.scale;
    if (experts_.renormalized) {
      const float sum = std::accumulate(weights.begin(), weights.end(), 0.0F) + row_.sum_addend;
      share /= std::max(sum, std::max(experts_.weight_floor, 1e-20F));
    }
    for (float& weight : weights) weight *= share;
  }

 private:
  static void softmax(std::vector<float>& x) {
    const float top = *std::max_element(x.begin(), x.end());
    float sum = 0;
    for (float& value : x) sum += value = std::exp(value - top);
    for (float& value : x) value /= sum;
  }

  static void sigmoid(std::vector<float>& x) {
    for (float& value : x) value = 1 / (1 + std::exp(-value));
  }

  // The indices of the `count` largest values, the first of equal ones; overwrites these values. `count` is small.
  static void take_largest(std::vector<float>& values, int64_t count, std::vector<int32_t>& largest) {
    largest.clear();
    for (int64_t i = 0; i < count; ++i) {
      const auto best = std::max_element(values.begin(), values.end());
      largest.push_back(static_cast<int32_t>(best - values.begin()));
      *best = -INFINITY;
    }
  }

  // Excludes the experts outside of the best groups.
  void keep_best_groups() {
    const int64_t size = experts_.count / experts_.groups;
    std::vector<float> of_groups, members;
    for (int64_t group = 0; group < experts_.groups; ++group) {
      members.assign(preferred_.begin() + group * size, preferred_.begin() + (group + 1) * size);
      std::sort(members.rbegin(), members.rend());
      of_groups.push_back(row_.two_of_group && size > 1 ? members[0] + members[1] : members[0]);
    }
    take_largest(of_groups, experts_.chosen_groups, chosen);
    for (int32_t group = 0; group < experts_.groups; ++group) {
      if (std::find(chosen.begin(), chosen.end(), group) == chosen.end())
        std::fill_n(preferred_.begin() + group * size, size, -INFINITY);
    }
  }

  // Chooses experts one by one; the weight of each is its probability among the remaining ones with similar logits.
  void mix_sparsely(const float* logits) {
    const std::vector<float> all(logits, logits + experts_.count);
    std::vector<float> left = all;
    chosen.clear();
    weights.clear();
    for (int64_t i = 0; i < experts_.chosen; ++i) {
      const auto best = std::max_element(left.begin(), left.end()) - left.begin();
      const float top = left[best];
      std::vector<float> near = left;
      for (size_t expert = 0; expert < near.size(); ++expert) {
        if ((top - all[expert]) / std::max(std::abs(all[expert]), top) > 2 * experts_.jitter) near[expert] = -INFINITY;
      }
      softmax(near);
      chosen.push_back(static_cast<int32_t>(best));
      weights.push_back(near[best]);
      left[best] = -INFINITY;
    }
  }

  const std::vector<float>& choice_bias_;
  const ExpertRow& row_;
  const Experts& experts_;
  std::vector<float> scores_, preferred_;
};

}  // namespace

Routing route(const std::vector<float>& logits, const std::vector<float>& choice_bias, const ExpertRow& row,
              const Experts& experts) {
  const auto count = static_cast<size_t>(experts.count);
  Routing routing{.rows = std::vector<std::vector<int32_t>>(count),
                  .weights = std::vector<std::vector<float>>(count),
                  .shared = {}};
  Chooser chooser(choice_bias, row, experts);
  for (size_t token = 0; token < logits.size() / count; ++token) {
    const float* own = logits.data() + token * count;
    if (std::adjacent_find(own, own + count, std::not_equal_to<>()) == own + count) {
      chooser.chosen.clear();
      for (int64_t i = 0; i < experts.chosen; ++i)
        chooser.chosen.push_back(static_cast<int32_t>((token * static_cast<size_t>(experts.chosen) + i) % count));
      chooser.weights.assign(static_cast<size_t>(experts.chosen), 1 / static_cast<float>(experts.chosen));
    } else {
      chooser.choose(own);
    }
    for (size_t i = 0; i < chooser.chosen.size(); ++i) {
      routing.rows[chooser.chosen[i]].push_back(static_cast<int32_t>(token));
      routing.weights[chooser.chosen[i]].push_back(chooser.weights[i]);
    }
  }
  return routing;
}

}  // namespace gptq
