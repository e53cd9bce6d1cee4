// The kinds of devices, and what is known of each without opening one.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/device.h"

namespace gptq {

class Backend;

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

// Opens a device by its name: "cpu", "sim:0". Throws InputError, listing what there is, for a name that this build or
// machine lacks.
std::unique_ptr<Backend> open_backend(std::string_view name, const BackendOptions& options = {});

// The devices of this machine that this build can use: accelerators first, "cpu" last, no simulated ones.
std::vector<DeviceInfo> list_devices();
// Why list_devices() has no accelerator, for each kind: "cuda:0: no NVIDIA driver is installed; ..."
std::string why_no_accelerator();

}  // namespace gptq
