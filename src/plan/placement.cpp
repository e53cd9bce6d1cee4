#include "plan/placement.h"

#include <algorithm>

#include "plan/offload_rules.h"

namespace gptq {

Placement place(const DeviceMap& map, const Machine& machine, const ModuleTree& tree, bool whole_map) {
  Placement placement{.map = map.to_json()};
  const std::string visited = visited_device(map, machine);
  for (const ModelUnit& unit : tree.units) {
    Placement::Unit placed{.module = unit.module, .bytes = unit.bytes};
    placed.stays = whole_map ? *map.find(unit.module) : visited;
    const bool elsewhere = placed.stays == "cpu" || placed.stays == "disk";
    placed.computes_on = elsewhere ? visited : placed.stays;
    placed.visits = placed.stays == "cpu" && visited != "cpu";
    if (std::count(placement.devices.begin(), placement.devices.end(), placed.computes_on) == 0)
      placement.devices.push_back(placed.computes_on);
    placement.units.push_back(std::move(placed));
  }
  return placement;
}

}  // namespace gptq
