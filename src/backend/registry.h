// The kinds of devices, and what is known of each without opening one.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/matrix.h"

namespace gptq {

class Backend;

struct DeviceTraits {
  bool is_host = false;              // the host itself: its matrices are in host memory
  bool is_simulated = false;         // an accelerator that exists once it is named
  bool computes_on_host = false;     // its ops keep the host's processors busy
  bool memory_is_the_hosts = false;  // what it allocates is host memory
  bool pool_counts = false;          // blocks that its pool holds for reuse count as allocated
};

struct BackendOptions {
  int threads = 0;           // host threads of a CPU backend; 0 means all cores
  int64_t memory_bytes = 0;  // that may be allocated; 0: what the device has
  // Where host memory comes from, instead of host_memory(): that of devices which compute there, and staging memory.
  Memory* memory = nullptr;
};

struct DeviceInfo {
  std::string name, description;  // "cuda:0", "NVIDIA H100 80GB HBM3"
  int64_t total_bytes = 0, free_bytes = 0;
};

// One row per backend. open and list are null where this build lacks it.
struct DeviceKind {
  std::string_view name;  // "cuda"
  bool is_numbered;       // devices are "cuda:0", "cuda:1", ...
  DeviceTraits traits;
  std::unique_ptr<Backend> (*open)(int index, const BackendOptions& options);
  std::vector<DeviceInfo> (*list)();  // those of this machine
};

// Accelerators first.
std::span<const DeviceKind> device_kinds();
// The kind called `name`, or null.
const DeviceKind* find_kind(std::string_view name);
// The traits of a device, known from its name: "cuda:1".
DeviceTraits traits_of(std::string_view device);

// Opens a device by its name: "cpu", "sim:0". Throws InputError, listing what there is, for a name that this build or
// machine lacks.
std::unique_ptr<Backend> open_backend(std::string_view name, const BackendOptions& options = {});

// The devices of this machine that this build can use: accelerators first, "cpu" last, no simulated ones.
std::vector<DeviceInfo> list_devices();
// Why list_devices() has no accelerator: "cuda:0: no NVIDIA driver is installed; ..."
std::string why_no_accelerator();

}  // namespace gptq
