// What this process has used so far: memory and time.
#pragma once

#include <chrono>
#include <cstdint>

namespace gptq {

int64_t resident_bytes();       // now
int64_t peak_resident_bytes();  // highest so far
double cpu_seconds();           // user and system time of all threads

// Memory of the machine, or of the control group (container) that this process runs in where that is less.
struct HostMemoryInfo {
  int64_t total_bytes = 0, free_bytes = 0;  // free: what can be had without swapping
};
HostMemoryInfo host_memory_info();

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Whether the processor has tile registers for bf16 (AMX) and the system lets this process use them, which it asks for:
// call it before threads start.
bool may_use_amx();

}  // namespace gptq
