// What is known of a device without opening it, and what it is opened with.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tensor/matrix.h"

namespace gptq {

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

// The traits of a device, known from its name: "cuda:1".
DeviceTraits traits_of(std::string_view device);

}  // namespace gptq
