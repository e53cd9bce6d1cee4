// Device maps: the device of each module, in accelerate's terms.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plan/machine.h"
#include "plan/module_tree.h"

namespace gptq {

struct DeviceMap {
  struct Entry {
    std::string module, device;  // "" means all modules; device is "cpu", "disk" or the name of an accelerator
  };
  std::vector<Entry> entries;  // in the given order

  // The device of the longest entry that is `module` or a prefix of it that ends at a dot; nullptr if there is none.
  const std::string* find(std::string_view module) const;
  bool uses(std::string_view device) const;
  // {"model.embed_tokens": "cuda:0", ...}
  std::string to_json() const;
};

// Parses a device map: a JSON object ({"": "cuda:0"}, {"model.layers.0": 1, ...}), a file with one, one device for all
// ("cuda:1", "cpu"), or a keyword: auto, balanced, balanced_low_0, sequential. Values are cuda, cuda:N, N, xpu, xpu:N,
// sim:N, cpu and disk; a number means that accelerator, a kind without number the first one. Throws InputError, listing
// the alternatives, for text that is neither JSON nor a file, an empty object, duplicate keys, invalid devices,
// negative indices, devices that this build or machine lacks, unknown modules, units without an entry, and entries that
// split a unit.
DeviceMap parse_device_map(std::string_view text, const Machine& machine, const ModuleTree& tree,
                           const MaxMemory& max_memory);

}  // namespace gptq
