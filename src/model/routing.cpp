#include "model/routing.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace gptq {
namespace {

struct Choice {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

void softmax(std::vector<float>& x) {
  const float top = *std::max_element(x.begin(), x.end());
  float sum = 0;
  for (float& value : x) sum += value = std::exp(value - top);
  for (float& value : x) value /= sum;
}

// The `count` largest, the first of equals.
std::vector<int32_t> largest(const std::vector<float>& values, int64_t count) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::partial_sort(order.begin(), order.begin() + count, order.end(),
                    [&](int32_t a, int32_t b) { return values[a] != values[b] ? values[a] > values[b] : a < b; });
  order.resize(static_cast<size_t>(count));
  return order;
}

// Experts outside of the best groups are as bad as can be.
void keep_best_groups(std::vector<float>& scores, bool two_of_group, const Experts& experts) {
  const int64_t size = experts.count / experts.groups;
  std::vector<float> of_groups;
  for (int64_t group = 0; group < experts.groups; ++group) {
    std::vector<float> members(scores.begin() + group * size, scores.begin() + (group + 1) * size);
    std::sort(members.rbegin(), members.rend());
    of_groups.push_back(two_of_group && size > 1 ? members[0] + members[1] : members[0]);
  }
  const std::vector<int32_t> kept = largest(of_groups, experts.chosen_groups);
  for (int32_t group = 0; group < experts.groups; ++group) {
    if (std::find(kept.begin(), kept.end(), group) == kept.end())
      std::fill_n(scores.begin() + group * size, size, -INFINITY);
  }
}

// Each expert in turn is the best of those not chosen before; its weight is its probability among those near the best.
Choice sparse_mixer(const std::vector<float>& logits, const Experts& experts) {
  Choice choice;
  std::vector<float> left = logits;
  for (int64_t i = 0; i < experts.chosen; ++i) {
    const int32_t best = largest(left, 1)[0];
    const float top = left[best];
    std::vector<float> near = left;
    for (size_t expert = 0; expert < near.size(); ++expert) {
      const float factor = std::max(std::abs(logits[expert]), top);
      if ((top - logits[expert]) / factor > 2 * experts.jitter) near[expert] = -INFINITY;
    }
    softmax(near);
    choice.experts.push_back(best);
    choice.weights.push_back(near[best]);
    left[best] = -INFINITY;
  }
  return choice;
}

Choice choose(const std::vector<float>& logits, const std::vector<float>& choice_bias, const ExpertRow& row,
              const Experts& experts) {
  if (row.kind == RouterKind::sparse_mixer) return sparse_mixer(logits, experts);
  std::vector<float> scores = logits;
  if (row.kind == RouterKind::softmax) {
    softmax(scores);
  } else {
    for (float& score : scores) score = 1 / (1 + std::exp(-score));
  }
  std::vector<float> preferred = scores;
  for (size_t expert = 0; expert < choice_bias.size(); ++expert) preferred[expert] += choice_bias[expert];
  if (experts.groups > 1) keep_best_groups(preferred, row.two_of_group, experts);
  Choice choice{.experts = largest(preferred, experts.chosen), .weights = {}};
  float sum = 0;
  for (const int32_t expert : choice.experts) sum += scores[expert];
  for (const int32_t expert : choice.experts) {
    const float share = experts.renormalized ? 1 / std::max(sum, std::max(experts.weight_floor, 1e-20F)) : 1;
    choice.weights.push_back(scores[expert] * share * experts.scale);
  }
  return choice;
}

}  // namespace

Routing route(const std::vector<float>& logits, const std::vector<float>& choice_bias, const Architecture& row,
              const Experts& experts) {
  const auto count = static_cast<size_t>(experts.count);
  Routing routing{.rows = std::vector<std::vector<int32_t>>(count),
                  .weights = std::vector<std::vector<float>>(count),
                  .shared = {}};
  for (size_t token = 0; token < logits.size() / count; ++token) {
    const std::vector<float> own(logits.begin() + token * count, logits.begin() + (token + 1) * count);
    Choice choice;
    if (std::adjacent_find(own.begin(), own.end(), std::not_equal_to<>()) == own.end()) {
      for (int64_t i = 0; i < experts.chosen; ++i)
        choice.experts.push_back(static_cast<int32_t>((token * static_cast<size_t>(experts.chosen) + i) % count));
      choice.weights.assign(static_cast<size_t>(experts.chosen), 1 / static_cast<float>(experts.chosen));
    } else {
      choice = choose(own, choice_bias, row.experts, experts);
    }
    for (size_t i = 0; i < choice.experts.size(); ++i) {
      routing.rows[choice.experts[i]].push_back(static_cast<int32_t>(token));
      routing.weights[choice.experts[i]].push_back(choice.weights[i]);
    }
  }
  return routing;
}

}  // namespace gptq
