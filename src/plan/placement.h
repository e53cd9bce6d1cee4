// The device that computes each module, and where its weights stay: a device map with the rules applied.
#pragma once

#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "model/specs.h"
#include "plan/device_map.h"
#include "plan/module_tree.h"

namespace gptq {

struct Placement {
  struct Unit {
    std::string module;       // "model.embed_tokens", "model.layers.0", ..., "model.norm", "lm_head"
    std::string computes_on;  // a device
    std::string stays;        // the map's place: a device, "cpu" or "disk"
    int64_t bytes = 0;        // of its weights as stored
    bool visits = false;      // is moved to computes_on from "cpu" when its turn comes, alone
  };
  std::vector<Unit> units;           // in the order of the model
  std::vector<std::string> devices;  // computing devices, in the order of their first unit
  std::string map;                   // as JSON

  const Unit& embedding() const { return units.front(); }
  const Unit& block(int64_t index) const { return units[static_cast<size_t>(index) + 1]; }
  const Unit& head() const { return units.back(); }
};

// Applies the rules to a map. With `whole_map` false the map asked for no placement: the whole model computes on the
// visited device.
Placement place(const DeviceMap& map, const Machine& machine, const ModuleTree& tree, bool whole_map);

}  // namespace gptq
