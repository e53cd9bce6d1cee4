#include "data/tokenizer/bpe_tables.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/values.h"

namespace gptq {
namespace {

using nlohmann::json;

constexpr char32_t kCharacterTable = 0x10000;

}  // namespace

void BpeVocabulary::read(const json& vocabulary) {
  if (!vocabulary.is_object())
    throw InputError(cat("\"vocab\" of model \"BPE\" is ", excerpt_of(vocabulary), " where an object was expected"));
  ids_.reserve(vocabulary.size());
  int32_t largest = -1;
  for (const auto& [token, id] : vocabulary.items()) {
    const int32_t value = token_id_of(id, "the token", token);
    ids_.emplace(token, value);
    largest = std::max(largest, value);
  }
  if (largest > 16 * size() + (1 << 20))
    throw InputError(cat("a vocabulary of ", size(), " tokens has the id ", largest));
  tokens_.resize(static_cast<size_t>(largest + 1));
  character_ids_.assign(kCharacterTable, -1);
  for (const auto& [token, id] : ids_) {
    tokens_[static_cast<size_t>(id)] = &token;
    if (token.empty()) continue;
    size_t end = 0;
    char32_t first = next_character(token, end);
    if (end == token.size() && first < kCharacterTable) character_ids_[first] = id;
  }
}

int32_t BpeVocabulary::id(std::string_view token) const {
  auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

const std::string* BpeVocabulary::token(int32_t id) const {
  return id < 0 || static_cast<size_t>(id) >= tokens_.size() ? nullptr : tokens_[static_cast<size_t>(id)];
}

int32_t BpeVocabulary::id_of(char32_t character) const {
  if (character < kCharacterTable) return character_ids_[character];
  std::string text;
  append_utf8(text, character);
  return id(text);
}

// A merge is "left right" or ["left", "right"]; its place in the list is its rank.
void BpeMerges::read(const json& merges, const BpeVocabulary& vocabulary) {
  uint64_t rank = 0;
  for (const json& merge : merges) {
    std::string left, right;
    if (merge.is_array()) {
      left = merge.at(0).get<std::string>(), right = merge.at(1).get<std::string>();
    } else {
      const std::string& text = merge.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      size_t space = text.find(' ');
      if (space == text.npos || text.find(' ', space + 1) != text.npos)
        throw InputError(cat("merge ", rank, " is \"", excerpt(text),
                             "\" where two tokens with one space between them were expected"));
      left = text.substr(0, space), right = text.substr(space + 1);
    }
    std::string whole = left + right;
    int32_t left_id = vocabulary.id(left), right_id = vocabulary.id(right), id = vocabulary.id(whole);
    if (left_id < 0 || right_id < 0 || id < 0) {
      const std::string& missing = left_id < 0 ? left : right_id < 0 ? right : whole;
      throw InputError(cat("merge ", rank, " needs the token \"", excerpt(missing), "\", which the vocabulary lacks"));
    }
    add(rank++, left_id, right_id, id);
    note_pairs(whole);
  }
}

void BpeMerges::derive(const BpeVocabulary& vocabulary) {
  constexpr size_t kMostWork = 300'000'000;  // real vocabularies: a thirtieth
  size_t work = 0;
  for (int32_t id = 0; id < vocabulary.end(); ++id) {
    const std::string* token = vocabulary.token(id);
    if (token == nullptr) continue;
    if ((work += token->size() * token->size()) > kMostWork)
      throw InputError("its tokens are longer than real ones are");
    const std::string_view text = *token;
    size_t at = 0;
    if (!text.empty()) next_character(text, at);
    const bool is_character = at == text.size();
    for (; at < text.size(); next_character(text, at)) {
      const int32_t left = vocabulary.id(text.substr(0, at)), right = left < 0 ? -1 : vocabulary.id(text.substr(at));
      if (right >= 0) add(static_cast<uint64_t>(id), left, right, id);
    }
    if (!is_character) note_pairs(text);
  }
}

void BpeMerges::add(uint64_t rank, int32_t left, int32_t right, int32_t id) {
  merges_.insert(PairTable::key(static_cast<uint32_t>(left), static_cast<uint32_t>(right)),
                 rank << 32 | static_cast<uint32_t>(id));
}

void BpeMerges::note_pairs(std::string_view token) {
  size_t at = 0;
  for (char32_t previous = next_character(token, at); at < token.size();) {
    const char32_t next = next_character(token, at);
    joined_.insert(PairTable::key(previous, next), 0);
    previous = next;
  }
}

}  // namespace gptq
