#include "data/tokenizer/trie.h"

namespace gptq {

int32_t& Trie::insert(std::string_view text) {
  uint32_t node = 0;
  for (const char byte : text) {
    uint32_t child = next(node, byte);
    if (child == kNone) {
      child = static_cast<uint32_t>(numbers_.size());
      if (child == node + 1) {
        following_[node] = static_cast<uint8_t>(byte);
      } else {
        children_.insert(PairTable::key(node, static_cast<uint8_t>(byte)), child);
      }
      following_.push_back(-1);
      numbers_.push_back(-1);
    }
    node = child;
  }
  return numbers_[node];
}

}  // namespace gptq
