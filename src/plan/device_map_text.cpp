#include "plan/device_map_text.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <unordered_set>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/edit_distance.h"
#include "base/error.h"
#include "io/file.h"
#include "io/json.h"
#include "plan/automatic_map.h"
#include "plan/settings.h"

namespace gptq {
namespace {

// Maps made with transformers name these although they have no weights in a checkpoint.
bool may_lack_weights(std::string_view module) {
  const std::string_view last = module.substr(module.rfind('.') + 1);
  return last == "rotary_emb" || last == "embed_positions" || last == "wpe";
}

// "'model.layers.0', 'model.layers.1' or 'model.norm'"
std::string nearest_to(std::string_view module, const std::unordered_set<std::string_view>& known) {
  std::vector<std::pair<int64_t, std::string_view>> near;
  near.reserve(known.size());
  for (const std::string_view name : known) near.emplace_back(edit_distance(module, name), name);
  const size_t count = std::min<size_t>(3, near.size());
  std::partial_sort(near.begin(), near.begin() + static_cast<std::ptrdiff_t>(count), near.end());
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    text += cat(i == 0 ? "" : i + 1 == count ? " or " : ", ", "'", near[i].second, "'");
  }
  return text;
}

void require_known_modules(const DeviceMap& map, const ModuleTree& tree, const std::string& where) {
  std::unordered_set<std::string_view> known = parents_of(tree.modules);
  known.insert(tree.modules.begin(), tree.modules.end());
  for (const ModelUnit& unit : tree.units) known.insert(unit.module);
  for (const DeviceMap::Entry& entry : map.entries) {
    if (entry.module.empty() || known.count(entry.module) != 0 || may_lack_weights(entry.module)) continue;
    throw InputError(cat(where, ": this model has no module '", entry.module, "'; the nearest are ",
                         nearest_to(entry.module, known)));
  }
}

// Requires that every unit is covered and on one device. Adds an entry for a unit whose parts have separate entries
// that agree, as in a map that lists all modules.
void require_whole_units(DeviceMap& map, const ModuleTree& tree, const std::string& where) {
  const std::unordered_set<std::string_view> parents = parents_of(tree.modules);
  std::vector<std::string> uncovered;
  std::vector<DeviceMap::Entry> added;
  for (const ModelUnit& unit : tree.units) {
    const DeviceMap::Entry* const of_unit = longest_entry(map.entries, unit.module);
    const bool names_parts = std::any_of(map.entries.begin(), map.entries.end(),
                                         [&](const auto& entry) { return is_below(entry.module, unit.module); });
    if (!names_parts) {
      if (of_unit == nullptr) uncovered.push_back(unit.module);
      continue;
    }
    const DeviceMap::Entry* agreed = of_unit != nullptr && of_unit->module == unit.module ? of_unit : nullptr;
    bool whole = true;
    for (const std::string& module : tree.modules) {
      if (!is_below(module, unit.module) || parents.count(module) != 0) continue;
      const DeviceMap::Entry* const entry = longest_entry(map.entries, module);
      whole = whole && entry != nullptr;
      if (agreed == nullptr) agreed = entry;
      if (entry == nullptr || entry->device == agreed->device) continue;
      throw InputError(cat(where, ": '", agreed->module, "' on ", agreed->device, " and '", entry->module, "' on ",
                           entry->device, " would split ", unit.module,
                           ", which computes on one device; give its modules the same device"));
    }
    if (agreed == nullptr) agreed = of_unit;
    if (!whole || agreed == nullptr) {
      uncovered.push_back(unit.module);
    } else if (of_unit == nullptr || of_unit->device != agreed->device) {
      added.push_back({unit.module, agreed->device});
    }
  }
  map.entries.insert(map.entries.end(), added.begin(), added.end());
  if (uncovered.empty()) return;

  std::string list;
  const size_t shown = std::min<size_t>(4, uncovered.size());
  for (size_t i = 0; i < shown; ++i) list += cat(i == 0 ? "" : ", ", uncovered[i]);
  if (shown < uncovered.size()) list += cat(", and ", uncovered.size() - shown, " more");
  throw InputError(cat(where, ": no entry covers ", uncovered.size(), " of the model's ", tree.units.size(),
                       " modules: ", list, "; add them, or \"\" for all that is left"));
}

std::string read_map_file(const std::string& path) {
  std::error_code ignored;
  if (path.empty() || !std::filesystem::exists(path, ignored)) {
    throw InputError(cat("`device_map` '", path, "' is neither JSON, nor one of the words ", kMapWordList,
                         ", nor a device, nor a file that exists; ", device_words()));
  }
  return read_text(path, kMaxConfigBytes);
}

DeviceMap read_map(std::string_view text, const std::string& where, const Machine& machine,
                   const MaxMemory& max_memory) {
  const bool simulated = std::any_of(max_memory.begin(), max_memory.end(),
                                     [](const auto& limit) { return traits_of(limit.first).is_simulated; });
  DeviceMap map;
  for (const Setting& setting : read_settings(text, where)) {
    const std::string here = cat(where, ": entry '", setting.key, "'");
    const bool is_number = setting.value.is_number_integer();
    if (!is_number && !setting.value.is_string()) {
      throw InputError(cat(here, " is ", setting.value.dump(), ": ", device_words(), "; ", there_is(machine)));
    }
    const std::string device =
        find_device(is_number ? setting.value.dump() : setting.value.get<std::string>(), machine, here);
    if (simulated && traits_of(device).is_simulated && limit_of(max_memory, device) == nullptr) {
      throw InputError(cat(here, ": `max_memory` names the simulated accelerators, and ", device,
                           " is none of them; this machine has: ", list_of(machine)));
    }
    map.entries.push_back({setting.key, device});
  }
  return map;
}

}  // namespace

DeviceMap parse_device_map(std::string_view text, const Machine& machine, const ModuleTree& tree,
                           const MaxMemory& max_memory) {
  const std::string_view argument = trimmed(text);
  if (std::count(std::begin(kMapWords), std::end(kMapWords), argument) != 0) {
    return automatic_map(argument, machine, tree, max_memory);
  }
  std::string where = "`device_map`", json(argument);
  if (is_device_word(argument)) {
    json = cat("{\"\": ", Json(as_utf8(json)).dump(), "}");
  } else if (!argument.starts_with('{')) {
    where = cat("`device_map` ", argument);
    json = read_map_file(json);
  }
  DeviceMap map = read_map(json, where, machine, max_memory);
  require_known_modules(map, tree, where);
  require_whole_units(map, tree, where);
  return map;
}

}  // namespace gptq
