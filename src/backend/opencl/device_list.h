// The OpenCL devices of this machine, in the order of its platforms.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/opencl/api.h"

namespace gptq::opencl {

struct DeviceFacts {
  cl_device_id id = nullptr;
  std::string model, version, driver;  // "Intel(R) Arc(TM) A770 Graphics", "OpenCL 3.0 NEO", "23.43.27642"
  bool is_cpu = false, is_rounding_exactly = false, has_doubles = false;
  int64_t memory = 0, largest_block = 0, local_memory = 0;  // bytes
  int64_t compute_units = 1, largest_group = 1;             // that run work-groups; threads of a work-group
  // Threads of a sub-group that multiplies matrices of 16 bits together; 0: none does. They may be emulated.
  int matrix_lanes = 0;
  bool emulates_matrices = false;

  // One line for people.
  std::string description() const;
};

struct DeviceList {
  std::vector<DeviceFacts> devices;
  std::string why_none;  // a sentence where there are none
};

// GPUs and accelerators, but not those of NVIDIA, which are cuda:N. The variable GPTQ_OPENCL_DEVICES takes all devices,
// CPUs too, where it is "all", and none where it is "none".
DeviceList find_devices();

// Why this program cannot use the device: a part of a sentence, or nothing.
std::string why_unusable(const DeviceFacts& device);

}  // namespace gptq::opencl
