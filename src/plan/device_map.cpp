// Device maps: reading what people write, checking it against the machine and the model, and making a map from a word.
#include "plan/device_map.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <optional>
#include <system_error>
#include <unordered_set>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/edit_distance.h"
#include "base/error.h"
#include "gptq/gptq.h"
#include "io/checkpoint.h"

namespace gptq {
namespace {

constexpr int64_t kSimulatedDevices = 64;
constexpr std::string_view kWords[] = {"auto", "balanced", "balanced_low_0", "sequential"};
constexpr std::string_view kWordList = "auto, balanced, balanced_low_0, sequential";
constexpr std::string_view kDeviceList = "a device is cuda, cuda:N, N, xpu, xpu:N, sim:N, cpu or disk";

// ---- JSON: an object of scalars, its order kept and no key twice ----

struct Setting {
  std::string key;
  Json value;  // null, a boolean, a number or a string
};

// The JSON library keeps the last of equal keys and says nothing, so the object is collected as it is read.
class SettingReader : public nlohmann::json_sax<Json> {
 public:
  SettingReader(std::string_view text, const std::string& where) : text_(text), where_(where) {}
  std::vector<Setting> take() { return std::move(settings_); }

  bool start_object(size_t /*size*/) override {
    if (opened_) throw nested();
    return opened_ = true;
  }
  bool start_array(size_t /*size*/) override { throw opened_ ? nested() : no_object(); }
  bool end_object() override { return true; }
  bool end_array() override { return true; }
  bool key(std::string& name) override {
    if (!keys_.insert(name).second) throw InputError(cat(where_, ": the entry '", name, "' comes twice; keep one"));
    settings_.push_back({name, nullptr});
    return true;
  }
  bool null() override { return take_value(nullptr); }
  bool boolean(bool value) override { return take_value(value); }
  bool number_integer(int64_t value) override { return take_value(value); }
  bool number_unsigned(uint64_t value) override { return take_value(value); }
  bool number_float(double value, const std::string& /*text*/) override { return take_value(value); }
  bool string(std::string& value) override { return take_value(value); }
  bool binary(Json::binary_t& /*value*/) override { return false; }
  bool parse_error(size_t position, const std::string& /*token*/, const nlohmann::json::exception& /*error*/) override {
    const std::string_view seen = text_.substr(0, position);
    throw InputError(cat(where_, ": not valid JSON at line ", std::count(seen.begin(), seen.end(), '\n') + 1,
                         ", column ", seen.size() - (seen.rfind('\n') + 1)));
  }

 private:
  InputError no_object() const { return InputError(cat(where_, ": holds no JSON object, which begins with {")); }
  InputError nested() const {
    return InputError(cat(where_, ": the entry '", settings_.empty() ? "" : settings_.back().key,
                          "' holds an object or a list where one value was expected"));
  }
  bool take_value(Json value) {
    if (!opened_) throw no_object();
    settings_.back().value = std::move(value);
    return true;
  }

  std::string_view text_;
  const std::string& where_;
  bool opened_ = false;
  std::unordered_set<std::string> keys_;
  std::vector<Setting> settings_;
};

std::vector<Setting> read_settings(std::string_view text, const std::string& where) {
  SettingReader reader(text, where);
  Json::sax_parse(text, &reader);
  std::vector<Setting> settings = reader.take();
  if (settings.empty()) throw InputError(cat(where, ": the object is empty; give it at least one entry"));
  return settings;
}

// ---- Names of devices ----

struct AcceleratorName {
  std::string_view kind, number;  // as written; "" is the kind of a number alone, "0" the number of a kind alone
};

std::optional<AcceleratorName> split_accelerator(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  if (kind == "cuda" || kind == "xpu" || kind == "sim") {
    return AcceleratorName{kind, colon == text.npos ? "0" : text.substr(colon + 1)};
  }
  const bool signed_number = text.starts_with('-');
  if (text.empty() || text.find_first_not_of("0123456789", signed_number ? 1 : 0) != text.npos) return std::nullopt;
  return AcceleratorName{"", text};
}

bool is_device_word(std::string_view text) {
  return text == "cpu" || text == "disk" || split_accelerator(text).has_value();
}

std::string there_is(const Machine& machine) {
  return cat("this machine has: ", list_of(machine), "; sim:N simulates an accelerator");
}

// The device that `text` means on this machine: "cpu", "disk", "cuda:1".
std::string find_device(std::string_view text, const Machine& machine, const std::string& where) {
  if (text == "cpu" || text == "disk") return std::string(text);
  const auto no_device = [&] {
    return InputError(cat(where, ": '", text, "' is no device: ", kDeviceList, "; ", there_is(machine)));
  };
  const std::optional<AcceleratorName> name = split_accelerator(text);
  if (!name) throw no_device();
  if (name->number.starts_with('-')) {
    throw InputError(cat(where, ": '", text, "' is negative, and devices are counted from 0; ", there_is(machine)));
  }
  int64_t number = 0;
  const char* const end = name->number.data() + name->number.size();
  if (const auto read = std::from_chars(name->number.data(), end, number); read.ec != std::errc() || read.ptr != end) {
    throw no_device();
  }
  if (name->kind == "sim") {
    if (number < kSimulatedDevices) return cat("sim:", number);
    throw InputError(
        cat(where, ": '", text, "': simulated accelerators are counted from sim:0 to sim:", kSimulatedDevices - 1));
  }
  for (const DeviceInfo& device : machine.accelerators) {
    if (name->kind.empty() ? device.name.ends_with(cat(":", number)) : device.name == cat(name->kind, ":", number)) {
      return device.name;
    }
  }
  const std::string reason = name->kind != "xpu" && !machine.why_no_gpu.empty() ? cat("; ", machine.why_no_gpu) : "";
  throw InputError(cat(where, ": there is no device '", text, "'; ", there_is(machine), reason));
}

const int64_t* limit_of(const MaxMemory& max_memory, std::string_view device) {
  for (const auto& [name, bytes] : max_memory) {
    if (name == device) return &bytes;
  }
  return nullptr;
}

int64_t read_size(const Setting& setting, const std::string& where) {
  const auto fail = [&](const std::string& what) {
    return InputError(cat(where, ": the size of '", setting.key, "' ", what,
                          "; write it as \"20GiB\", \"800MB\" or a number of bytes"));
  };
  int64_t bytes = 0;
  if (setting.value.is_string()) {
    try {
      bytes = parse_bytes(setting.value.get<std::string>());
    } catch (const InputError&) {
      throw fail(cat("is ", setting.value.dump(), ", which is no positive size"));
    }
  } else if (setting.value.is_number_unsigned() && setting.value.get<uint64_t>() <= INT64_MAX) {
    bytes = setting.value.get<int64_t>();
  } else {
    throw fail(cat("is ", setting.value.dump()));
  }
  if (bytes <= 0) throw fail(cat("is ", setting.value.dump(), ", which is no positive size"));
  return bytes;
}

// ---- Names of modules ----

// Whether `module` lies below `ancestor`; all lie below "".
bool is_below(std::string_view module, std::string_view ancestor) {
  if (ancestor.empty()) return !module.empty();
  return module.size() > ancestor.size() && module.starts_with(ancestor) && module[ancestor.size()] == '.';
}

bool covers(std::string_view entry, std::string_view module) { return entry == module || is_below(module, entry); }

const DeviceMap::Entry* longest_entry(const std::vector<DeviceMap::Entry>& entries, std::string_view module) {
  const DeviceMap::Entry* longest = nullptr;
  for (const DeviceMap::Entry& entry : entries) {
    if (covers(entry.module, module) && (longest == nullptr || entry.module.size() > longest->module.size())) {
      longest = &entry;
    }
  }
  return longest;
}

// Modules that have modules below them: "model", "model.layers", "model.layers.0", ...
std::unordered_set<std::string_view> parents_of(const std::vector<std::string>& modules) {
  std::unordered_set<std::string_view> parents;
  for (const std::string_view module : modules) {
    for (size_t dot = module.rfind('.'); dot != module.npos && dot != 0; dot = module.rfind('.', dot - 1)) {
      if (!parents.insert(module.substr(0, dot)).second) break;
    }
  }
  return parents;
}

// Maps made with transformers name these even though they own no weights, or none that a checkpoint stores.
bool may_lack_weights(std::string_view module) {
  const std::string_view last = module.substr(module.rfind('.') + 1);
  return last == "rotary_emb" || last == "embed_positions" || last == "wpe";
}

// "'model.layers.0', 'model.layers.1' or 'model.norm'"
std::string nearest_to(std::string_view module, const std::unordered_set<std::string_view>& known) {
  std::vector<std::pair<int64_t, std::string_view>> near;
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

// Every unit is covered and on one device. Where its parts have entries of their own that agree, as in a map that lists
// modules one by one, an entry for the unit is added.
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

// ---- Words: the placement of accelerate's get_balanced_memory() and infer_auto_device_map() ----

struct Budget {
  std::string device;
  int64_t bytes = 0;
  bool keeps_room = false;  // for the largest unit still to be placed, which may have to visit
};

// A unit more than its share fits on every device: 1.25 times the larger of a block and the mean of all layers (the
// modules that hold weights themselves). A head without bytes is the embedding's twin, no layer of its own.
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

// Cuts budgets so that all accelerators get about as much; with `low_zero` all but the first, which takes what is left.
// The last keeps its budget, in case the buffer is too small.
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

// Fills the devices one after the other with the units in their order; what fits nowhere is on disk.
DeviceMap fill(const std::vector<Budget>& devices, const std::vector<ModelUnit>& units) {
  std::vector<int64_t> largest_after(units.size(), 0);
  for (size_t i = units.size() - 1; i > 0; --i) largest_after[i - 1] = std::max(largest_after[i], units[i].bytes);
  DeviceMap map;
  size_t at = 0;
  int64_t used = 0;
  for (size_t i = 0; i < units.size(); ++i) {
    if (i > 0 && i + 1 == units.size() && units[i].bytes == 0) {  // tied: beside the embedding
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

DeviceMap map_of_word(std::string_view word, const Machine& machine, const ModuleTree& tree,
                      const MaxMemory& max_memory) {
  if (machine.accelerators.empty() || tree.units.empty()) return {{{"", "cpu"}}};
  const auto budget = [&](const DeviceInfo& device, bool keeps_room) {
    const int64_t* const limit = limit_of(max_memory, device.name);
    return Budget{device.name, limit != nullptr ? *limit : device.free_bytes, keeps_room};
  };
  std::vector<Budget> devices;
  for (const DeviceInfo& device : machine.accelerators) devices.push_back(budget(device, devices.empty()));
  if (word != "sequential") {
    // A tenth of the only accelerator is left to the computation, unless its memory was given.
    if (devices.size() == 1 && limit_of(max_memory, devices[0].device) == nullptr) {
      devices[0].bytes -= devices[0].bytes / 10;
    }
    balance(devices, tree, word == "balanced_low_0");
  }
  devices.push_back(budget(machine.cpu, true));
  return fill(devices, tree.units);
}

// ---- The argument ----

std::string read_map_file(const std::string& path) {
  std::error_code ignored;
  if (path.empty() || !std::filesystem::exists(path, ignored)) {
    throw InputError(cat("--device-map '", path, "' is neither JSON, nor one of the words ", kWordList,
                         ", nor a device, nor a file that exists; ", kDeviceList));
  }
  std::ifstream file(path, std::ios::binary);
  if (std::filesystem::is_directory(path, ignored) || !file) {
    throw InputError(cat("--device-map ", path, ": it cannot be read; give a JSON file"));
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view spaces = " \t\r\n";
  const size_t first = text.find_first_not_of(spaces);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(spaces) - first + 1);
}

DeviceMap read_map(std::string_view text, const std::string& where, const Machine& machine,
                   const MaxMemory& max_memory) {
  const bool simulated = std::any_of(max_memory.begin(), max_memory.end(),
                                     [](const auto& limit) { return limit.first.starts_with("sim:"); });
  DeviceMap map;
  for (const Setting& setting : read_settings(text, where)) {
    const std::string here = cat(where, ": entry '", setting.key, "'");
    const bool is_number = setting.value.is_number_integer();
    if (!is_number && !setting.value.is_string()) {
      throw InputError(cat(here, " is ", setting.value.dump(), ": ", kDeviceList, "; ", there_is(machine)));
    }
    const std::string device =
        find_device(is_number ? setting.value.dump() : setting.value.get<std::string>(), machine, here);
    if (simulated && device.starts_with("sim:") && limit_of(max_memory, device) == nullptr) {
      throw InputError(cat(here, ": --max-memory names the simulated accelerators, and ", device,
                           " is none of them; this machine has: ", list_of(machine)));
    }
    map.entries.push_back({setting.key, device});
  }
  return map;
}

}  // namespace

std::string list_of(const Machine& machine) {
  std::string list;
  const auto add = [&](const DeviceInfo& device) {
    list += cat(list.empty() ? "" : ", ", device.name, " (", device.description, device.description.empty() ? "" : ", ",
                format_bytes(static_cast<double>(device.total_bytes)), ")");
  };
  for (const DeviceInfo& device : machine.accelerators) add(device);
  add(machine.cpu);
  return list;
}

MaxMemory parse_max_memory(std::string_view text, Machine& machine) {
  const std::string where = "--max-memory";
  if (!trimmed(text).starts_with('{')) {
    throw InputError(cat(where, " '", text, R"(' is no JSON object; write it as {"cuda:0": "20GiB", "cpu": "64GiB"}; )",
                         there_is(machine)));
  }
  const std::vector<Setting> settings = read_settings(text, where);
  Machine limited = machine;
  std::vector<DeviceInfo> simulated;
  for (const Setting& setting : settings) {
    const std::optional<AcceleratorName> name = split_accelerator(setting.key);
    if (!name || name->kind != "sim") continue;
    const int64_t bytes = read_size(setting, where);
    simulated.push_back({.name = find_device(setting.key, machine, where),
                         .description = "simulated",
                         .total_bytes = bytes,
                         .free_bytes = bytes});
  }
  if (!simulated.empty()) {
    std::sort(simulated.begin(), simulated.end(), [](const DeviceInfo& a, const DeviceInfo& b) {
      return std::pair(a.name.size(), a.name) < std::pair(b.name.size(), b.name);  // sim:2 before sim:10
    });
    limited.accelerators = simulated;
  }

  MaxMemory max_memory;
  for (const Setting& setting : settings) {
    const std::string device = find_device(setting.key, limited, where);
    if (device == "disk") throw InputError(cat(where, ": 'disk' takes no size; limit accelerators and cpu"));
    if (limit_of(max_memory, device) != nullptr) {
      throw InputError(cat(where, ": '", setting.key, "' names ", device, " once more; keep one of its sizes"));
    }
    max_memory.emplace_back(device, read_size(setting, where));
  }
  machine = limited;
  return max_memory;
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

DeviceMap parse_device_map(std::string_view text, const Machine& machine, const ModuleTree& tree,
                           const MaxMemory& max_memory) {
  const std::string_view argument = trimmed(text);
  if (std::count(std::begin(kWords), std::end(kWords), argument) != 0) {
    return map_of_word(argument, machine, tree, max_memory);
  }
  std::string where = "--device-map", json(argument);
  if (is_device_word(argument)) {
    json = cat("{\"\": ", Json(argument).dump(), "}");
  } else if (!argument.starts_with('{')) {
    where = cat("--device-map ", argument);
    json = read_map_file(json);
  }
  DeviceMap map = read_map(json, where, machine, max_memory);
  require_known_modules(map, tree, where);
  require_whole_units(map, tree, where);
  return map;
}

}  // namespace gptq
