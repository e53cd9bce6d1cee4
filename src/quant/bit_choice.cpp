#include "quant/bit_choice.h"

#include <algorithm>

namespace gptq {
namespace {

// A step of a unit from the previous candidate on its hull to this one.
struct Upgrade {
  size_t unit = 0, from = 0, to = 0;
  double gain = 0;  // reduction of loss per bit of a weight
  double cost = 0;  // bits
};

// The steps of a unit, with descending gain per bit.
std::vector<Upgrade> upgrades_of(const BitUnit& unit, size_t index) {
  std::vector<Upgrade> steps;
  size_t at = 0;
  for (;;) {
    Upgrade best{.unit = index, .from = at, .to = at};
    for (size_t to = at + 1; to < unit.candidates.size(); ++to) {
      const double cost = static_cast<double>(unit.weights) * (unit.candidates[to].bits - unit.candidates[at].bits);
      const double gain = (unit.candidates[at].loss - unit.candidates[to].loss) / cost;
      if (gain > best.gain) best = {index, at, to, gain, cost};
    }
    if (best.to == at) return steps;
    steps.push_back(best);
    at = best.to;
  }
}

}  // namespace

std::vector<size_t> choose_bits(const std::vector<BitUnit>& units, double average_bits) {
  std::vector<Upgrade> upgrades;
  double weights = 0, bits = 0;
  for (size_t i = 0; i < units.size(); ++i) {
    const std::vector<Upgrade> steps = upgrades_of(units[i], i);
    upgrades.insert(upgrades.end(), steps.begin(), steps.end());
    weights += static_cast<double>(units[i].weights);
    bits += static_cast<double>(units[i].weights) * units[i].candidates[0].bits;
  }
  // Stable: the steps of a unit stay in order.
  std::stable_sort(upgrades.begin(), upgrades.end(),
                   [](const Upgrade& a, const Upgrade& b) { return a.gain > b.gain; });
  const double allowed = average_bits * weights * (1 + 1e-12);
  std::vector<size_t> chosen(units.size(), 0);
  for (const Upgrade& upgrade : upgrades) {
    if (chosen[upgrade.unit] != upgrade.from || bits + upgrade.cost > allowed) continue;
    chosen[upgrade.unit] = upgrade.to;
    bits += upgrade.cost;
  }
  return chosen;
}

int64_t probed_widths(const std::vector<int>& widths) {
  const auto many = std::find(widths.begin(), widths.end(), 8);
  return std::clamp<int64_t>(many - widths.begin(), 1, 2);
}

}  // namespace gptq
