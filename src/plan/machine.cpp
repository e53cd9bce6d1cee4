#include "plan/machine.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <system_error>

#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "base/error.h"
#include "gptq/gptq.h"
#include "plan/settings.h"

namespace gptq {
namespace {

constexpr int64_t kSimulatedDevices = 64;

struct AcceleratorName {
  std::string_view kind, number;  // as written; kind "" for a plain number, number "0" for a plain kind
};

std::optional<AcceleratorName> split_accelerator(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view kind = text.substr(0, colon);
  if (const DeviceKind* known = find_kind(kind); known != nullptr && known->is_numbered) {
    return AcceleratorName{kind, colon == text.npos ? "0" : text.substr(colon + 1)};
  }
  const bool signed_number = text.starts_with('-');
  if (text.empty() || text.find_first_not_of("0123456789", signed_number ? 1 : 0) != text.npos) return std::nullopt;
  return AcceleratorName{"", text};
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
      throw fail(cat("is ", setting.value.dump(), ", which is not a positive size"));
    }
  } else if (setting.value.is_number_unsigned() && setting.value.get<uint64_t>() <= INT64_MAX) {
    bytes = setting.value.get<int64_t>();
  } else {
    throw fail(cat("is ", setting.value.dump()));
  }
  if (bytes <= 0) throw fail(cat("is ", setting.value.dump(), ", which is not a positive size"));
  return bytes;
}

}  // namespace

bool is_device_word(std::string_view text) {
  return text == "cpu" || text == "disk" || split_accelerator(text).has_value();
}

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

std::string device_words() {
  std::string accelerators, simulated, hosts;
  for (const DeviceKind& kind : device_kinds()) {
    if (!kind.is_numbered)
      hosts += cat(", ", kind.name);
    else if (kind.traits.is_simulated)
      simulated += cat(", ", kind.name, ":N");
    else  // a number alone is the first kind's
      accelerators +=
          cat(accelerators.empty() ? "" : ", ", kind.name, ", ", kind.name, ":N", accelerators.empty() ? ", N" : "");
  }
  return cat("a device is ", accelerators, simulated, hosts, " or disk");
}

std::string there_is(const Machine& machine) {
  return cat("this machine has: ", list_of(machine), "; sim:N simulates an accelerator");
}

std::string find_device(std::string_view text, const Machine& machine, const std::string& where) {
  if (text == "cpu" || text == "disk") return std::string(text);
  const auto no_device = [&] {
    return InputError(cat(where, ": '", text, "' is not a device: ", device_words(), "; ", there_is(machine)));
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
  if (traits_of(name->kind).is_simulated) {
    if (number < kSimulatedDevices) return cat(name->kind, ":", number);
    throw InputError(cat(where, ": '", text, "': simulated accelerators are counted from ", name->kind, ":0 to ",
                         name->kind, ":", kSimulatedDevices - 1));
  }
  for (const DeviceInfo& device : machine.accelerators) {
    if (name->kind.empty() ? device.name.ends_with(cat(":", number)) : device.name == cat(name->kind, ":", number)) {
      return device.name;
    }
  }
  const std::string reason = machine.why_no_gpu.empty() ? "" : cat("; ", machine.why_no_gpu);
  throw InputError(cat(where, ": there is no device '", text, "'; ", there_is(machine), reason));
}

const int64_t* limit_of(const MaxMemory& max_memory, std::string_view device) {
  for (const auto& [name, bytes] : max_memory) {
    if (name == device) return &bytes;
  }
  return nullptr;
}

MaxMemory parse_max_memory(std::string_view text, Machine& machine) {
  const std::string where = "`max_memory`";
  if (!trimmed(text).starts_with('{')) {
    throw InputError(cat(where, " '", text,
                         R"(' is not a JSON object; write it as {"cuda:0": "20GiB", "cpu": "64GiB"}; )",
                         there_is(machine)));
  }
  const std::vector<Setting> settings = read_settings(text, where);
  Machine limited = machine;
  std::vector<DeviceInfo> simulated;
  for (const Setting& setting : settings) {
    const std::optional<AcceleratorName> name = split_accelerator(setting.key);
    if (!name || !traits_of(name->kind).is_simulated) continue;
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
      throw InputError(cat(where, ": '", setting.key, "' names ", device, " twice; keep one of its sizes"));
    }
    max_memory.emplace_back(device, read_size(setting, where));
  }
  machine = limited;
  return max_memory;
}

}  // namespace gptq
