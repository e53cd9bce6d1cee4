// Device maps: the device of each module, in accelerate's terms.
#pragma once

#include <string>
#include <string_view>
#include <vector>

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

// Whether `module` is inside `ancestor`; "" contains all.
bool is_below(std::string_view module, std::string_view ancestor);

// The longest entry that is `module` or contains it; nullptr where none does.
const DeviceMap::Entry* longest_entry(const std::vector<DeviceMap::Entry>& entries, std::string_view module);

}  // namespace gptq
