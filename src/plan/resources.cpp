#include "plan/resources.h"

#include "base/error.h"
#include "gptq/gptq.h"

namespace gptq {

int64_t Resources::limit_of(const std::string& device) const {
  for (const auto& [name, bytes] : max_memory) {
    if (name == device) return bytes;
  }
  if (device == "cpu") return machine.cpu.total_bytes;
  for (const DeviceInfo& accelerator : machine.accelerators) {
    if (accelerator.name == device) return accelerator.free_bytes;
  }
  return 0;
}

Resources find_resources(const std::string& max_memory) {
  Resources resources;
  resources.machine.accelerators = list_devices();
  resources.machine.cpu = resources.machine.accelerators.back();
  resources.machine.accelerators.pop_back();
  if (resources.machine.accelerators.empty()) resources.machine.why_no_gpu = why_no_accelerator();
  if (!max_memory.empty()) resources.max_memory = parse_max_memory(max_memory, resources.machine);
  return resources;
}

std::vector<DeviceSummary> devices() {
  std::vector<DeviceSummary> summaries;
  for (const DeviceInfo& device : list_devices())
    summaries.push_back({device.name, device.description, device.total_bytes, device.free_bytes});
  return summaries;
}

}  // namespace gptq
