#include "plan/speed.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "backend/timing.h"
#include "base/resources.h"
#include "base/stopwatch.h"

namespace gptq {
namespace {

// The most multiply-adds or elements of a trial: a few milliseconds. In a large job, where the speed of large calls
// counts, a trial may have this share of all multiply-adds, up to the larger bound.
struct TrialRange {
  double min_products = 4e8, max_products = 1e10, elements = 1 << 20;
};
constexpr TrialRange kOfProcessors, kOfAccelerators = {.min_products = 1e10, .max_products = 1e12, .elements = 1 << 26};
constexpr double kShare = 1e-4;

OpCall tried_for(const OpCall& call, const ops::TrialLimits& limits) {
  return {call.op, ops::facts_of(call.op).trial_sizes(call.sizes, limits), call.dtype};
}

bool is_product(const OpCall& call) { return ops::facts_of(call.op).is_product; }

}  // namespace

double work_of(const OpCall& call) { return ops::facts_of(call.op).work(call.sizes); }

Speeds::Speeds(Backend& backend, const Calls& calls, double budget) {
  double products = 0;
  for (const auto& [stage, of_stage] : calls) {
    for (const auto& [call, count] : of_stage)
      products += is_product(call) ? work_of(call) * static_cast<double>(count) : 0;
  }
  const TrialRange& range = backend.traits().computes_on_host ? kOfProcessors : kOfAccelerators;
  limits_ = {std::clamp(kShare * products, range.min_products, range.max_products), range.elements};
  std::map<OpCall, double> totals;  // work represented by each trial
  for (const auto& [stage, of_stage] : calls) {
    for (const auto& [call, count] : of_stage) {
      if (work_of(call) > 0) totals[tried_for(call, limits_)] += work_of(call) * static_cast<double>(count);
    }
  }
  std::vector<std::pair<double, OpCall>> order;
  for (const auto& [call, total] : totals) {
    // An element takes about as long as this many multiply-adds; the most expensive trials come first.
    order.emplace_back(total * (is_product(call) ? 1 : 20), call);
  }
  std::sort(order.begin(), order.end(), [](const auto& x, const auto& y) { return x.first > y.first; });

  // After sleep, threads take a while to spread over cores, and cores to raise their clock.
  constexpr double kWarmUp = 0.1;
  if (!order.empty()) time_op(backend, order.front().second, kWarmUp);
  double all = 0;
  for (const auto& [total, call] : order) all += total;

  const Stopwatch watch;
  for (const auto& [total, call] : order) {
    const bool first_of_its_kind = nearest(call) == nullptr;
    if (watch.seconds() > budget && !first_of_its_kind) continue;
    speeds_[call] = work_of(call) / time_op(backend, call, budget / 2 * total / all);
  }
  if (!backend.traits().is_host) seconds_per_byte_ = time_transfers(backend);
  backend.trim();
}

// The trial of the same op and dtype whose sizes are most similar.
const double* Speeds::nearest(const OpCall& call) const {
  const double* speed = nullptr;
  double least = INFINITY;
  for (const auto& [tried, found] : speeds_) {
    if (tried.op != call.op || tried.dtype != call.dtype) continue;
    double distance = 0;
    for (size_t i = 0; i < call.sizes.size(); ++i) {
      const auto size = [&](const OpCall& c) {
        return std::log(static_cast<double>(std::max<int64_t>(c.sizes[i], 1)));
      };
      distance += std::abs(size(tried) - size(call));
    }
    if (distance < least) {
      least = distance;
      speed = &found;
    }
  }
  return speed;
}

std::map<std::string, double> Speeds::seconds(const Calls& calls) const {
  std::map<std::string, double> seconds;
  for (const auto& [stage, of_stage] : calls) {
    for (const auto& [call, count] : of_stage) {
      if (work_of(call) <= 0) continue;
      const double* speed = nearest(tried_for(call, limits_));
      if (speed != nullptr) seconds[stage] += work_of(call) * static_cast<double>(count) / *speed;
    }
  }
  return seconds;
}

}  // namespace gptq
