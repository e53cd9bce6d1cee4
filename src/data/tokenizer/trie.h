// A set of texts, each with a number, for finding those that a text starts with. Walked byte by byte from node 0.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/tokenizer/pair_table.h"

namespace gptq {

class Trie {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};

  // The number of a text, to be set; -1 if the text is new.
  int32_t& insert(std::string_view text);

  // The node behind `node` and a byte, or kNone.
  uint32_t next(uint32_t node, char byte) const {
    if (following_[node] == static_cast<uint8_t>(byte)) return node + 1;
    const uint64_t child = children_.find(PairTable::key(node, static_cast<uint8_t>(byte)));
    return child == PairTable::kAbsent ? kNone : static_cast<uint32_t>(child);
  }
  // The number of the text that ends at a node, or -1.
  int32_t number(uint32_t node) const { return numbers_[node]; }

 private:
  // By node. Most nodes have one child, which is the next one: no need to look for it.
  std::vector<int16_t> following_ = {-1};  // the byte that leads to the next node, or -1
  std::vector<int32_t> numbers_ = {-1};
  PairTable children_;  // (node, byte) -> node, for the other children
};

}  // namespace gptq
