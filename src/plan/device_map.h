// Which device each module of a model is given to: accelerate's vocabulary and its automatic maps. Units that are never
// split are the embedding, each block, the final norm and the head.
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

// A JSON object of device (as in a map; a number in quotes is an accelerator) to size ("20GiB", "800MB" or a number of
// bytes). Naming sim:N puts simulated accelerators of those sizes in place of the machine's own: `machine` is changed.
// Throws InputError for what is no such object, duplicate keys, sizes that do not parse or are not positive, and
// devices that the machine lacks (it lists what there is).
MaxMemory parse_max_memory(std::string_view text, Machine& machine);

struct DeviceMap {
  struct Entry {
    std::string module, device;  // "" stands for all modules; device is "cpu", "disk" or the name of an accelerator
  };
  std::vector<Entry> entries;  // in the order given

  // The device of the longest entry that is `module` or a prefix of it that ends before a dot; nullptr where none is.
  const std::string* find(std::string_view module) const;
  bool uses(std::string_view device) const;
  // {"model.embed_tokens": "cuda:0", ...}
  std::string to_json() const;
};

// A unit with the bytes of its weights, in the order of the model.
struct ModelUnit {
  std::string module;  // "model.embed_tokens", "model.layers.0", ..., "model.norm", "lm_head"
  int64_t bytes = 0;
};

// The modules of a model: what a map may name, and what it must cover.
struct ModuleTree {
  std::vector<ModelUnit> units;
  std::vector<std::string> modules;  // all there are, below the units as well: "model.layers.0.self_attn.q_proj"
};

// A map as --device-map takes it: a JSON object ({"": "cuda:0"}, {"model.layers.0": 1, ...}), a file that holds one,
// one device for all ("cuda:1", "cpu"), or one of the words auto, balanced, balanced_low_0, sequential. Values are
// cuda, cuda:N, N, xpu, xpu:N, sim:N, cpu and disk; a number, and the bare word of a kind, mean that accelerator (the
// first). Throws InputError, listing what there is, for: no JSON and no such file, an empty object, duplicate keys,
// values that are no device, negative indices, a device that this build or machine lacks, a module that the model
// lacks, a unit that no entry covers, and entries that would split a unit.
DeviceMap parse_device_map(std::string_view text, const Machine& machine, const ModuleTree& tree,
                           const MaxMemory& max_memory);

}  // namespace gptq
