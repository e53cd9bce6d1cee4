#include "plan/automatic_map.h"

#include <algorithm>
#include <unordered_set>

namespace gptq {
namespace {

struct Budget {
  std::string device;
  int64_t bytes = 0;
  bool keeps_room = false;  // reserves memory for the largest unit not yet placed, which may visit
};

// Extra room per device for one more unit: 1.25 times the larger of a block and the mean of all layers (modules with
// own weights). A head without bytes is tied to the embedding and not a layer.
int64_t balance_buffer(const ModuleTree& tree, int64_t total) {
  const std::unordered_set<std::string_view> parents = parents_of(tree.modules);
  int64_t layers = 0, block = 0;
  for (const std::string& module : tree.modules) layers += parents.count(module) == 0 ? 1 : 0;
  if (tree.units.back().bytes == 0) --layers;
  for (const ModelUnit& unit : tree.units) {
    if (parents.count(unit.module) != 0) block = std::max(block, unit.bytes);
  }
  const int64_t larger = std::max(block, total / std::max<int64_t>(layers, 1));
  return larger + larger / 4;
}

// Reduces budgets so that all accelerators get about the same; with `low_zero` all but the first, which takes the rest.
// The last one keeps its budget, in case the extra room is too small.
void balance(std::vector<Budget>& accelerators, const ModuleTree& tree, bool low_zero) {
  const size_t count = accelerators.size();
  const size_t sharing = low_zero && count > 1 ? count - 1 : count;
  int64_t total = 0;
  for (const ModelUnit& unit : tree.units) total += unit.bytes;
  const int64_t share = total / static_cast<int64_t>(sharing) + balance_buffer(tree, total);
  for (size_t i = count - sharing; i + 1 < count; ++i) accelerators[i].bytes = std::min(accelerators[i].bytes, share);
  if (sharing == count) return;
  int64_t left = total;
  for (size_t i = 1; i < count; ++i) left -= std::min(left, accelerators[i].bytes);
  accelerators[0].bytes = std::min(accelerators[0].bytes, left);
}

// Fills the devices in turn with the units in order; units that fit nowhere go to disk.
DeviceMap fill(const std::vector<Budget>& devices, const std::vector<ModelUnit>& units) {
  std::vector<int64_t> largest_after(units.size(), 0);
  for (size_t i = units.size() - 1; i > 0; --i) largest_after[i - 1] = std::max(largest_after[i], units[i].bytes);
  DeviceMap map;
  size_t at = 0;
  int64_t used = 0;
  for (size_t i = 0; i < units.size(); ++i) {
    if (i > 0 && i + 1 == units.size() && units[i].bytes == 0) {  // tied: on the embedding's device
      map.entries.push_back({units[i].module, map.entries.front().device});
      continue;
    }
    const auto fits = [&](const Budget& device) {
      return used + units[i].bytes + (device.keeps_room ? largest_after[i] : 0) <= device.bytes;
    };
    while (at < devices.size() && !fits(devices[at])) {
      ++at;
      used = 0;
    }
    used += units[i].bytes;
    map.entries.push_back({units[i].module, at < devices.size() ? devices[at].device : "disk"});
  }
  const std::string first = map.entries.front().device;
  const bool all_on_one = std::all_of(map.entries.begin(), map.entries.end(),
                                      [&](const DeviceMap::Entry& entry) { return entry.device == first; });
  if (all_on_one) map.entries = {{"", first}};
  return map;
}

}  // namespace

DeviceMap automatic_map(std::string_view word, const Machine& machine, const ModuleTree& tree,
                        const MaxMemory& max_memory) {
  if (machine.accelerators.empty() || tree.units.empty()) return {{{"", "cpu"}}};
  const auto budget = [&](const DeviceInfo& device, bool keeps_room) {
    const int64_t* const limit = limit_of(max_memory, device.name);
    return Budget{device.name, limit != nullptr ? *limit : device.free_bytes, keeps_room};
  };
  std::vector<Budget> devices;
  for (const DeviceInfo& device : machine.accelerators) devices.push_back(budget(device, devices.empty()));
  if (word != "sequential") {
    // Reserves a tenth of a single accelerator for computing, unless its memory was given.
    if (devices.size() == 1 && limit_of(max_memory, devices[0].device) == nullptr) {
      devices[0].bytes -= devices[0].bytes / 10;
    }
    balance(devices, tree, word == "balanced_low_0");
  }
  devices.push_back(budget(machine.cpu, true));
  return fill(devices, tree.units);
}

}  // namespace gptq
