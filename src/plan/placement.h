// Which device computes each module of a model, and where its weights stay: what the rules make of a device map.
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
    std::string stays;        // where the map has it: a device, "cpu" or "disk"
    int64_t bytes = 0;        // of its weights as stored
    bool visits = false;      // comes to computes_on from "cpu" for its turn, alone
  };
  std::vector<Unit> units;           // in the order of the model
  std::vector<std::string> devices;  // that compute, in the order of their first unit
  std::string map;                   // as JSON

  const Unit& embedding() const { return units.front(); }
  const Unit& block(int64_t index) const { return units[static_cast<size_t>(index) + 1]; }
  const Unit& head() const { return units.back(); }
};

// What the rules make of a map. With `whole_map` false the map asked for no placement, and all of the model computes on
// the visited device.
Placement place(const DeviceMap& map, const Machine& machine, const ModuleTree& tree, bool whole_map);

}  // namespace gptq
