// The devices that a job may use, with the limits of --max-memory.
#pragma once

#include <string>

#include "plan/device_map.h"

namespace gptq {

struct Resources {
  Machine machine;
  MaxMemory max_memory;
  int64_t limit_of(const std::string& device) const;  // in bytes; 0: unknown
};

// max_memory: as Job::max_memory. Throws InputError if it is invalid or names a device that the machine does not have.
Resources find_resources(const std::string& max_memory);

}  // namespace gptq
