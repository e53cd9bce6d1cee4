// Which device each module of a model is given to, in accelerate's vocabulary.
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
    std::string module, device;  // "" stands for all modules; device is "cpu", "disk" or the name of an accelerator
  };
  std::vector<Entry> entries;  // in the order given

  // The device of the longest entry that is `module` or a prefix of it that ends before a dot; nullptr where none is.
  const std::string* find(std::string_view module) const;
  bool uses(std::string_view device) const;
  // {"model.embed_tokens": "cuda:0", ...}
  std::string to_json() const;
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
