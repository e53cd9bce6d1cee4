#include "data/tokenizer/pair_table.h"

#include <algorithm>

namespace gptq {

size_t PairTable::slot_of(uint64_t key) const {
  size_t mask = slots_.size() - 1;
  // The upper bits of the product, which all bits of the key reach.
  size_t slot = (key ^ key >> 32) * 0x9e3779b97f4a7c15u >> 32 & mask;
  while (slots_[slot].value != kAbsent && slots_[slot].key != key) slot = (slot + 1) & mask;
  return slot;
}

void PairTable::insert(uint64_t key, uint64_t value) {
  if (2 * (used_ + 1) > slots_.size()) {
    std::vector<Slot> old(std::max<size_t>(16, 2 * slots_.size()));
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.value != kAbsent) slots_[slot_of(slot.key)] = slot;
  }
  Slot& slot = slots_[slot_of(key)];
  if (slot.value == kAbsent) ++used_;
  slot = {key, value};
}

uint64_t PairTable::find(uint64_t key) const { return slots_.empty() ? kAbsent : slots_[slot_of(key)].value; }

}  // namespace gptq
