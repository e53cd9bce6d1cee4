#include "plan/module_tree.h"

#include <algorithm>
#include <set>

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
    if (unit == tree.units.end()) continue;  // does not compute
    if (config.tied_embeddings && unit->module == config.head && tensor->name != embedding_tensor(config)) continue;
    add(module);
    unit->bytes += static_cast<int64_t>(tensor->bytes);
  }
  tree.modules.assign(modules.begin(), modules.end());
  return tree;
}

std::unordered_set<std::string_view> parents_of(const std::vector<std::string>& modules) {
  std::unordered_set<std::string_view> parents;
  for (const std::string_view module : modules) {
    for (size_t dot = module.rfind('.'); dot != module.npos && dot != 0; dot = module.rfind('.', dot - 1)) {
      if (!parents.insert(module.substr(0, dot)).second) break;
    }
  }
  return parents;
}

}  // namespace gptq
