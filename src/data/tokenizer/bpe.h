// The byte pair encoding model: merges the characters of a word pair by pair, in the order of the list of merges.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/model.h"

namespace gptq {

// A hash map from pairs of 32-bit numbers to 64-bit values: open addressing, no removal.
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

class BytePairEncoding final : public TokenizerModel {
 public:
  // From tokenizer.json's "model". Throws UnsupportedError for another model or an unknown option.
  explicit BytePairEncoding(const nlohmann::json& model);

  // Appends the ids of one word (valid UTF-8). O(n log n) in its length.
  void encode(std::string_view word, WordCache& cache, Budget& budget, std::vector<int32_t>& ids) const override;

  int32_t token_id(std::string_view token) const override;
  const std::string* token(int32_t id) const override;
  int64_t size() const override { return static_cast<int64_t>(vocabulary_.size()); }

 private:
  void read_merges(const nlohmann::json& merges);
  int32_t character_id(char32_t character) const;
  void encode_part(std::string_view word, WordCache& cache, std::vector<int32_t>& ids) const;
  std::vector<int32_t> characters_to_ids(std::string_view word) const;
  void merge(std::vector<int32_t>& ids) const;

  Vocabulary vocabulary_;
  std::vector<const std::string*> tokens_;  // by id; keys of vocabulary_
  std::vector<int32_t> character_ids_;      // ids of the characters below U+10000
  PairTable merges_;                        // (left id, right id) -> rank << 32 | id of the merged token
  PairTable joined_;                        // (character, next character): all pairs inside merged tokens
  std::vector<int32_t> byte_ids_;           // ids of <0x00> to <0xFF> or -1; empty without byte fallback
  int32_t unknown_id_ = -1;
  bool has_unknown_ = false, fuse_unknown_ = false, ignore_merges_ = false;
};

}  // namespace gptq
