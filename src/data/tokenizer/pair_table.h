// A hash map from pairs of 32-bit numbers to 64-bit values: open addressing, no removal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace gptq {

class PairTable {
 public:
  static constexpr uint64_t kAbsent = ~uint64_t{0};
  static uint64_t key(uint32_t first, uint32_t second) { return uint64_t{first} << 32 | second; }

  void insert(uint64_t key, uint64_t value);  // replaces the value of an existing key
  uint64_t find(uint64_t key) const;          // kAbsent if there is none

 private:
  struct Slot {
    uint64_t key, value = kAbsent;
  };
  size_t slot_of(uint64_t key) const;
  std::vector<Slot> slots_;
  size_t used_ = 0;
};

}  // namespace gptq
