#include "base/resources.h"

#include <fstream>

#include <sys/resource.h>
#include <unistd.h>

#include "gptq/gptq.h"

namespace gptq {

std::string version() { return GPTQ_VERSION; }

int64_t resident_bytes() {
  int64_t total = 0, resident = 0;  // pages, from proc(5)
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t peak_resident_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;  // kilobytes on Linux
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace gptq
