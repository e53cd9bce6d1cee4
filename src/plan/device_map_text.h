// Reads device maps, and checks them against the machine and the model.
#pragma once

#include <string_view>

#include "plan/device_map.h"
#include "plan/machine.h"
#include "plan/module_tree.h"

namespace gptq {

// Parses a device map: a JSON object ({"": "cuda:0"}, {"model.layers.0": 1, ...}), a file with one, one device for all
// ("cuda:1", "cpu"), or a keyword: auto, balanced, balanced_low_0, sequential. Values are cuda, cuda:N, N, xpu, xpu:N,
// sim:N, cpu and disk; a number means that accelerator, a kind without number the first one. Throws InputError, listing
// the alternatives, for text that is neither JSON nor a file, an empty object, duplicate keys, invalid devices,
// negative indices, devices that this build or machine lacks, unknown modules, units without an entry, and entries that
// split a unit.
DeviceMap parse_device_map(std::string_view text, const Machine& machine, const ModuleTree& tree,
                           const MaxMemory& max_memory);

}  // namespace gptq
