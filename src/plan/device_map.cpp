#include "plan/device_map.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/checkpoint.h"

namespace gptq {
namespace {

bool covers(std::string_view entry, std::string_view module) { return entry == module || is_below(module, entry); }

}  // namespace

bool is_below(std::string_view module, std::string_view ancestor) {
  if (ancestor.empty()) return !module.empty();
  return module.size() > ancestor.size() && module.starts_with(ancestor) && module[ancestor.size()] == '.';
}

const DeviceMap::Entry* longest_entry(const std::vector<DeviceMap::Entry>& entries, std::string_view module) {
  const DeviceMap::Entry* longest = nullptr;
  for (const DeviceMap::Entry& entry : entries) {
    if (covers(entry.module, module) && (longest == nullptr || entry.module.size() > longest->module.size())) {
      longest = &entry;
    }
  }
  return longest;
}

const std::string* DeviceMap::find(std::string_view module) const {
  const Entry* const entry = longest_entry(entries, module);
  return entry != nullptr ? &entry->device : nullptr;
}

bool DeviceMap::uses(std::string_view device) const {
  return std::any_of(entries.begin(), entries.end(), [&](const Entry& entry) { return entry.device == device; });
}

std::string DeviceMap::to_json() const {
  std::string text;
  for (const Entry& entry : entries) {
    text += cat(text.empty() ? "" : ", ", Json(entry.module).dump(), ": ", Json(entry.device).dump());
  }
  return "{" + text + "}";
}

}  // namespace gptq
