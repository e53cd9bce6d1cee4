// The devices that a run may use, by the names that people give them, and their memory limits.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/backend.h"

namespace gptq {

// The devices that a run may use. The first accelerator is the current one.
struct Machine {
  std::vector<DeviceInfo> accelerators;  // "cuda:0", "cuda:1", ..., or "sim:0", ...
  DeviceInfo cpu;
  std::string why_no_gpu;  // if there is none: "cuda:0: no NVIDIA driver is installed; ..."
};

// "cuda:0 (NVIDIA H100, 80 GB), cpu (AMD EPYC, 25 GB)": for messages that list the devices.
std::string list_of(const Machine& machine);

// Limits of devices in bytes, in the given order: accelerators as "cuda:N" or "sim:N", and "cpu".
using MaxMemory = std::vector<std::pair<std::string, int64_t>>;

// The limit of a device; nullptr if it has none.
const int64_t* limit_of(const MaxMemory& max_memory, std::string_view device);

// Parses a JSON object of device (as in a map; a number in quotes is an accelerator) to size ("20GiB", "800MB" or a
// number of bytes). sim:N replaces the machine's accelerators by simulated ones of these sizes: `machine` is changed.
// Throws InputError for other text, duplicate keys, invalid or non-positive sizes, and devices that the machine does
// not have (listing those it has).
MaxMemory parse_max_memory(std::string_view text, Machine& machine);

// "a device is cuda, cuda:N, N, xpu, xpu:N, sim:N, cpu or disk": for messages.
std::string device_words();

// Whether `text` is the name of a device on any machine.
bool is_device_word(std::string_view text);

// The device that `text` means on this machine: "cpu", "disk", "cuda:1". Throws InputError, naming `where`.
std::string find_device(std::string_view text, const Machine& machine, const std::string& where);

// "this machine has: ...": for messages.
std::string there_is(const Machine& machine);

}  // namespace gptq
