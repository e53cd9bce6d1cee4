// The machine as a job may use it: its devices, less what --max-memory takes away.
#pragma once

#include <string>

#include "plan/device_map.h"

namespace gptq {

struct Resources {
  Machine machine;
  MaxMemory max_memory;
  int64_t limit_of(const std::string& device) const;  // bytes; 0 where neither --max-memory nor the device says
};

// max_memory: as Job::max_memory. Throws InputError where it does not parse or names a device that is not there.
Resources find_resources(const std::string& max_memory);

}  // namespace gptq
