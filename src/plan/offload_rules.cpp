#include "plan/offload_rules.h"

#include <algorithm>

#include "base/error.h"

namespace gptq {

void refuse_disk_offload(const DeviceMap& map) {
  std::string entries;
  for (const DeviceMap::Entry& entry : map.entries) {
    if (entry.device == "disk") entries += cat(entries.empty() ? "" : ", ", "\"", entry.module, "\"");
  }
  if (entries.empty()) return;
  throw InputError(cat("disk offload is not supported with GPTQ quantization: `device_map` gives ", entries,
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

Precision precision_of(DType stored, const std::string& wanted, const Backend& backend) {
  const bool is_asked_for = wanted != "auto";
  DType computed = DType::f32;
  if (!is_asked_for) {
    computed = backend.compute_dtype(stored);
  } else if (wanted == "bf16") {
    computed = DType::bf16;
  } else if (wanted == "fp16") {
    computed = DType::f16;
  } else if (wanted != "fp32") {
    throw option_error("precision", " ", wanted, ": there are auto, fp32, bf16, fp16");
  }
  return {.stored = stored,
          .computed = computed,
          .residual = backend.residual_dtype(computed),
          .fuses_linears = backend.fuses_linears(computed),
          .is_asked_for = is_asked_for,
          .use_cuda_fp16 = stored == DType::f16 && computed == DType::f16};
}

std::string message_of(const Precision& precision) {
  const std::string stored(name_of(precision.stored)), computed(name_of(precision.computed));
  if (precision.is_asked_for)
    return cat("precision: ", computed, " (use_cuda_fp16: ", precision.use_cuda_fp16 ? "true" : "false",
               "), as `precision` says; the checkpoint is stored in ", stored);
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
