// What byte pair encoding reads from tokenizer.json's "model": the tokens, and the merges of two tokens into one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/model.h"
#include "data/tokenizer/pair_table.h"

namespace gptq {

class BpeVocabulary {
 public:
  // From "vocab". Throws InputError for an id that is negative or far larger than the number of tokens.
  void read(const nlohmann::json& vocabulary);

  int32_t id(std::string_view token) const;    // -1 if none
  int32_t id_of(char32_t character) const;     // of the token that is this character; -1 if none
  const std::string* token(int32_t id) const;  // null if none
  int32_t end() const { return static_cast<int32_t>(tokens_.size()); }  // all ids are smaller
  int64_t size() const { return static_cast<int64_t>(ids_.size()); }

 private:
  Vocabulary ids_;
  std::vector<const std::string*> tokens_;  // by id; keys of ids_
  std::vector<int32_t> character_ids_;      // ids of the characters below U+10000
};

class BpeMerges {
 public:
  // From "merges". Throws InputError for a malformed merge, and for one that needs a token that does not exist.
  void read(const nlohmann::json& merges, const BpeVocabulary& vocabulary);

  // All ways to make a token of two others, the token with the lowest id first: tiktoken's merges, whose ids are ranks.
  // Throws InputError for tokens that are longer than real ones, as the work grows with the squares of their lengths.
  void derive(const BpeVocabulary& vocabulary);

  // rank << 32 | id of the merged token; PairTable::kAbsent if the two are not merged.
  uint64_t find(int32_t left, int32_t right) const {
    return merges_.find(PairTable::key(static_cast<uint32_t>(left), static_cast<uint32_t>(right)));
  }
  // Whether a merged token has these characters next to each other.
  bool joins(char32_t character, char32_t next) const {
    return joined_.find(PairTable::key(character, next)) != PairTable::kAbsent;
  }

 private:
  void add(uint64_t rank, int32_t left, int32_t right, int32_t id);
  void note_pairs(std::string_view token);

  PairTable merges_;  // (left id, right id)
  PairTable joined_;  // (character, next character): all pairs inside merged tokens
};

}  // namespace gptq
