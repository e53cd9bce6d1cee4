#include "base/resources.h"

#include <algorithm>
#include <fstream>
#include <string>

#include <sys/resource.h>
#include <unistd.h>

#include "gptq/gptq.h"

namespace gptq {

namespace {

// The value of `key` in a file of "key value" lines, such as /proc/meminfo; -1 if absent.
int64_t value_in(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string name; file >> name;) {
    int64_t value = -1;
    if (!(file >> value)) return -1;
    if (name == key) return value;
    file.ignore(256, '\n');
  }
  return -1;
}

int64_t number_in(const std::string& path) {
  int64_t value = -1;
  std::ifstream file(path);
  return file >> value ? value : -1;
}

// Lowers `info` to the limits of the control groups from `folder` up to its root.
void apply_groups(const std::string& root, std::string folder, const char* limit, const char* usage, const char* cache,
                  HostMemoryInfo& info) {
  for (;; folder.resize(folder.rfind('/'))) {
    const std::string place = root + folder + "/";
    const int64_t most = number_in(place + limit), used = number_in(place + usage);
    if (most > 0 && used >= 0 && most < info.total_bytes) {
      const int64_t reclaimable = std::max<int64_t>(0, value_in(place + "memory.stat", cache));
      info.total_bytes = most;
      info.free_bytes = std::min(info.free_bytes, most - used + std::min(used, reclaimable));
    }
    if (folder.find('/') == std::string::npos) return;
  }
}

}  // namespace

HostMemoryInfo host_memory_info() {
  HostMemoryInfo info{value_in("/proc/meminfo", "MemTotal:") * 1024, value_in("/proc/meminfo", "MemAvailable:") * 1024};
  std::ifstream groups("/proc/self/cgroup");  // cgroups(7): "4:memory:/path" (v1), "0::/path" (v2)
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string folder = line.substr(second + 1);
    if (folder == "/") folder.clear();
    if (controllers == "memory") {
      apply_groups("/sys/fs/cgroup/memory", folder, "memory.limit_in_bytes", "memory.usage_in_bytes",
                   "total_inactive_file", info);
    } else if (controllers.empty()) {
      apply_groups("/sys/fs/cgroup", folder, "memory.max", "memory.current", "inactive_file", info);
    }
  }
  return info;
}

int64_t resident_bytes() {
  int64_t total = 0, resident = 0;  // pages, from proc(5)
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

AddressSpace address_space() {
  int64_t total = 0, resident = 0, shared = 0, text = 0, library = 0, data = 0;  // pages, from proc(5)
  std::ifstream("/proc/self/statm") >> total >> resident >> shared >> text >> library >> data;
  return {total * sysconf(_SC_PAGESIZE), data * sysconf(_SC_PAGESIZE)};
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
