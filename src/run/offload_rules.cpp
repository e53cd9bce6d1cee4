#include "run/offload_rules.h"

#include <algorithm>

#include "base/error.h"

namespace gptq {

void refuse_disk_offload(const DeviceMap& map) {
  std::string entries;
  for (const DeviceMap::Entry& entry : map.entries) {
    if (entry.device == "disk") entries += cat(entries.empty() ? "" : ", ", "\"", entry.module, "\"");
  }
  if (entries.empty()) return;
  throw InputError(cat("disk offload is not supported with GPTQ quantization: --device-map gives ", entries,
                       " to disk; give them to a device or to cpu instead: weights stream from the checkpoint, so the "
                       "model never has to fit in memory"));
}

bool offloads_to_cpu(const DeviceMap& map) { return map.entries.size() > 1 && map.uses("cpu"); }

bool asks_for_no_placement(const DeviceMap& map) { return map.entries.size() == 1 && map.entries[0].device == "cpu"; }

DeviceMap default_device_map(const Machine& machine) {
  return {{{"", machine.accelerators.empty() ? "cpu" : machine.accelerators[0].name}}};
}

std::string default_device_map_message(const Machine& machine) {
  return cat("The device_map was not initialized. Setting device_map to {'': ",
             machine.accelerators.empty() ? "'cpu'" : "0", "}.");
}

std::string visited_device(const DeviceMap& map, const Machine& machine) {
  for (const DeviceMap::Entry& entry : map.entries) {
    if (entry.device != "cpu" && entry.device != "disk") return entry.device;
  }
  return machine.accelerators.empty() ? "cpu" : machine.accelerators[0].name;
}

Precision precision_of(DType stored, DType computed) {
  return {stored, computed, stored == DType::f16 && computed == DType::f16};
}

std::string message_of(const Precision& precision) {
  const std::string stored(name_of(precision.stored)), computed(name_of(precision.computed));
  if (precision.use_cuda_fp16)
    return "precision: f16 (use_cuda_fp16: true), because the checkpoint is stored in f16 and this device computes in "
           "it";
  if (precision.computed == precision.stored) {
    return cat("precision: ", computed, " (use_cuda_fp16: false), because the checkpoint is stored in ", stored);
  }
  return cat("precision: ", computed, " (use_cuda_fp16: false): the checkpoint is stored in ", stored, ", and ",
             computed, " holds each of its values exactly and is the faster one on this device");
}

}  // namespace gptq
