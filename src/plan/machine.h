// What a run may use: devices by the names that people give them, and how much memory of each.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/backend.h"

namespace gptq {

// What a run may use. The first accelerator is the current one.
struct Machine {
  std::vector<DeviceInfo> accelerators;  // "cuda:0", "cuda:1", ..., or "sim:0", ...
  DeviceInfo cpu;
  std::string why_no_gpu;  // where there is none: "cuda:0: no NVIDIA driver is installed; ..."
};

// "cuda:0 (NVIDIA H100, 80 GB), cpu (AMD EPYC, 25 GB)": for messages that list what there is.
std::string list_of(const Machine& machine);

// Bytes that a device may use, in the order given: accelerators as "cuda:N" or "sim:N", and "cpu".
using MaxMemory = std::vector<std::pair<std::string, int64_t>>;

// The limit of a device; nullptr where there is none.
const int64_t* limit_of(const MaxMemory& max_memory, std::string_view device);

// A JSON object of device (as in a map; a number in quotes is an accelerator) to size ("20GiB", "800MB" or a number of
// bytes). Naming sim:N puts simulated accelerators of those sizes in place of the machine's own: `machine` is changed.
// Throws InputError for what is no such object, duplicate keys, sizes that do not parse or are not positive, and
// devices that the machine lacks (it lists what there is).
MaxMemory parse_max_memory(std::string_view text, Machine& machine);

// "a device is cuda, cuda:N, N, xpu, xpu:N, sim:N, cpu or disk": for messages.
std::string device_words();

// Whether `text` is the name of a device, on whichever machine.
bool is_device_word(std::string_view text);

// The device that `text` means on this machine: "cpu", "disk", "cuda:1". Throws InputError, naming `where`.
std::string find_device(std::string_view text, const Machine& machine, const std::string& where);

// "this machine has: ...": for messages.
std::string there_is(const Machine& machine);

}  // namespace gptq
