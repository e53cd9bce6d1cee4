#include "run/placement.h"

#include <algorithm>
#include <set>

#include "model/specs.h"
#include "run/offload_rules.h"

namespace gptq {

ModuleTree module_tree(const Checkpoint& checkpoint, const ModelConfig& config) {
  const Architecture& names = *config.architecture;
  ModuleTree tree;
  tree.units.push_back({module_path(config, names.embedding)});
  for (int64_t block = 0; block < config.blocks; ++block) tree.units.push_back({block_module(config, block)});
  tree.units.push_back({module_path(config, names.final_norm)});
  tree.units.push_back({config.head});

  std::set<std::string> modules;
  const auto add = [&](std::string name) {
    for (; !name.empty(); name.resize(name.rfind('.') == std::string::npos ? 0 : name.rfind('.'))) modules.insert(name);
  };
  for (ModelUnit& unit : tree.units) add(unit.module);
  for (const StoredTensor* tensor : checkpoint.tensors()) {
    const std::string module = tensor->name.substr(0, tensor->name.rfind('.'));
    const auto unit = std::find_if(tree.units.begin(), tree.units.end(), [&](const ModelUnit& u) {
      return tensor->name.starts_with(u.module) && tensor->name.size() > u.module.size() &&
             tensor->name[u.module.size()] == '.';
    });
    if (unit == tree.units.end()) continue;  // nothing that computes
    if (config.tied_embeddings && unit->module == config.head) continue;
    add(module);
    unit->bytes += static_cast<int64_t>(tensor->bytes);
  }
  tree.modules.assign(modules.begin(), modules.end());
  return tree;
}

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
