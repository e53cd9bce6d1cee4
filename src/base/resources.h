// Memory and processor time that this process has used, and memory of the machine.
#pragma once

#include <cstdint>

namespace gptq {

int64_t resident_bytes();       // now
int64_t peak_resident_bytes();  // highest so far
// Mapped by this process: all of it, and what is private and writable (RLIMIT_AS, RLIMIT_DATA).
struct AddressSpace {
  int64_t bytes = 0, data_bytes = 0;
};
AddressSpace address_space();
double cpu_seconds();  // user and system time of all threads

// Memory of the machine, or of this process's control group (container) where that is less.
struct HostMemoryInfo {
  int64_t total_bytes = 0, free_bytes = 0;  // free: available without swapping
};
HostMemoryInfo host_memory_info();

}  // namespace gptq
