// Byte pair encoding. Three things make it fast: a cache of words, a heap of pending merges, and splitting long words
// between characters that no token joins, which does not change the result, as no merge crosses such a position.
#include "data/tokenizer/bpe.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>
#include <queue>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/values.h"

namespace gptq {
namespace {

using nlohmann::json;

// Words of at most this many bytes are encoded whole; longer ones are split where no token joins.
constexpr size_t kLongWord = 64;
// Longer parts are not cached, as they hardly recur.
constexpr size_t kCachedLength = 256;
constexpr char32_t kCharacterTable = 0x10000;

struct Merge {
  uint64_t order;  // rank << 32 | position: the lowest rank first, then the leftmost
  int32_t id;      // of the merged token
  bool operator>(const Merge& other) const { return order > other.order; }
};

struct Symbol {
  int32_t id, previous, next;  // positions of the neighbours, -1 if none
  bool merged_away = false;
};

bool is_set(const json& model, const char* option) {
  auto found = model.find(option);
  return found != model.end() && !found->is_null() && *found != json("") && *found != json(0.0);
}

}  // namespace

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

BytePairEncoding::BytePairEncoding(const json& model) {
  std::string type = model.value("type", "BPE");
  if (type != "BPE" || !model.contains("merges"))
    throw UnsupportedError(cat("the model \"", excerpt(type), "\" is not supported"));
  for (const char* option : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"})
    if (is_set(model, option))
      throw UnsupportedError(cat("the option \"", option, "\" of model \"BPE\" is not supported"));
  fuse_unknown_ = model.value("fuse_unk", false);
  ignore_merges_ = model.value("ignore_merges", false);

  const json& vocabulary = model.at("vocab");
  if (!vocabulary.is_object())
    throw InputError(cat("\"vocab\" of model \"BPE\" is ", excerpt_of(vocabulary), " where an object was expected"));
  vocabulary_.reserve(vocabulary.size());
  int32_t largest = -1;
  for (const auto& [token, id] : vocabulary.items()) {
    const int32_t value = token_id_of(id, "the token", token);
    vocabulary_.emplace(token, value);
    largest = std::max(largest, value);
  }
  if (largest > 16 * size() + (1 << 20))
    throw InputError(cat("a vocabulary of ", size(), " tokens has the id ", largest));
  tokens_.resize(static_cast<size_t>(largest + 1));
  character_ids_.assign(kCharacterTable, -1);
  for (const auto& [token, id] : vocabulary_) {
    tokens_[static_cast<size_t>(id)] = &token;
    if (token.empty()) continue;
    size_t end = 0;
    char32_t first = next_character(token, end);
    if (end == token.size() && first < kCharacterTable) character_ids_[first] = id;
  }

  if (is_set(model, "unk_token")) {
    has_unknown_ = true;
    unknown_id_ = token_id(model.at("unk_token").get<std::string>());
  }
  if (model.value("byte_fallback", false)) {
    for (int byte = 0; byte < 256; ++byte) {
      std::array<char, 8> name{};
      std::snprintf(name.data(), name.size(), "<0x%02X>", byte);
      byte_ids_.push_back(token_id(name.data()));
    }
  }
  read_merges(model.at("merges"));
}

// A merge is "left right" or ["left", "right"]; its place in the list is its rank.
void BytePairEncoding::read_merges(const json& merges) {
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
    int32_t left_id = token_id(left), right_id = token_id(right), id = token_id(whole);
    if (left_id < 0 || right_id < 0 || id < 0) {
      const std::string& missing = left_id < 0 ? left : right_id < 0 ? right : whole;
      throw InputError(cat("merge ", rank, " needs the token \"", excerpt(missing), "\", which the vocabulary lacks"));
    }
    merges_.insert(PairTable::key(static_cast<uint32_t>(left_id), static_cast<uint32_t>(right_id)),
                   rank++ << 32 | static_cast<uint32_t>(id));
    size_t at = 0;
    for (char32_t previous = next_character(whole, at); at < whole.size();) {
      char32_t next = next_character(whole, at);
      joined_.insert(PairTable::key(previous, next), 0);
      previous = next;
    }
  }
}

int32_t BytePairEncoding::token_id(std::string_view token) const {
  auto found = vocabulary_.find(token);
  return found == vocabulary_.end() ? -1 : found->second;
}

const std::string* BytePairEncoding::token(int32_t id) const {
  return id < 0 || static_cast<size_t>(id) >= tokens_.size() ? nullptr : tokens_[static_cast<size_t>(id)];
}

int32_t BytePairEncoding::character_id(char32_t character) const {
  if (character < kCharacterTable) return character_ids_[character];
  std::string text;
  append_utf8(text, character);
  return token_id(text);
}

void BytePairEncoding::encode(std::string_view word, WordCache& cache, Budget&, std::vector<int32_t>& ids) const {
  if (word.empty()) return;
  if (ignore_merges_) {
    if (int32_t id = token_id(word); id >= 0) return ids.push_back(id);
  }
  if (word.size() <= kLongWord) return encode_part(word, cache, ids);
  // Splits only between characters that are tokens: unknown ones may fuse or fall back to bytes.
  size_t start = 0, at = 0;
  char32_t previous = next_character(word, at);
  bool previous_known = character_id(previous) >= 0;
  while (at < word.size()) {
    size_t boundary = at;
    char32_t next = next_character(word, at);
    bool known = character_id(next) >= 0;
    if (known && previous_known && joined_.find(PairTable::key(previous, next)) == PairTable::kAbsent) {
      encode_part(word.substr(start, boundary - start), cache, ids);
      start = boundary;
    }
    previous = next, previous_known = known;
  }
  encode_part(word.substr(start), cache, ids);
}

void BytePairEncoding::encode_part(std::string_view word, WordCache& cache, std::vector<int32_t>& ids) const {
  auto append = [&](auto first, auto last) { ids.insert(ids.end(), first, last); };
  if (auto found = cache.words.find(word); found != cache.words.end()) {
    auto [start, end] = found->second;
    return append(cache.ids.begin() + static_cast<int64_t>(start), cache.ids.begin() + static_cast<int64_t>(end));
  }
  std::vector<int32_t> merged = characters_to_ids(word);
  merge(merged);
  append(merged.begin(), merged.end());
  if (word.size() > kCachedLength) return;
  size_t start = cache.ids.size();
  cache.ids.insert(cache.ids.end(), merged.begin(), merged.end());
  cache.words.emplace(word, WordCache::Range{start, cache.ids.size()});
}

// One id per character that is a token; other characters become their bytes, else the unknown token, else nothing. As
// in tokenizers, the unknown token is emitted at the next known character, after any bytes in between.
std::vector<int32_t> BytePairEncoding::characters_to_ids(std::string_view word) const {
  std::vector<int32_t> ids;
  bool unknown_waits = false;
  auto flush = [&] {
    if (unknown_waits) ids.push_back(unknown_id_);
    unknown_waits = false;
  };
  for (size_t at = 0; at < word.size();) {
    size_t start = at;
    if (int32_t id = character_id(next_character(word, at)); id >= 0) {
      flush();
      ids.push_back(id);
      continue;
    }
    std::string_view bytes = word.substr(start, at - start);
    auto byte_id = [&](char byte) { return byte_ids_[static_cast<uint8_t>(byte)]; };
    if (!byte_ids_.empty() && std::all_of(bytes.begin(), bytes.end(), [&](char byte) { return byte_id(byte) >= 0; })) {
      for (char byte : bytes) ids.push_back(byte_id(byte));
      continue;
    }
    if (!has_unknown_) continue;
    if (unknown_id_ < 0) throw InputError("the tokenizer's vocabulary lacks its own unk_token");
    if (!fuse_unknown_) flush();
    unknown_waits = true;
  }
  flush();
  return ids;
}

void BytePairEncoding::merge(std::vector<int32_t>& ids) const {
  if (ids.size() < 2) return;
  std::vector<Symbol> symbols;
  symbols.reserve(ids.size());
  auto count = static_cast<int32_t>(ids.size());
  for (int32_t i = 0; i < count; ++i)
    symbols.push_back({ids[static_cast<size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  auto symbol = [&](int32_t position) -> Symbol& { return symbols[static_cast<size_t>(position)]; };
  // rank << 32 | id of the merge of the symbol at `position` with the next one, or kAbsent.
  auto merge_at = [&](int32_t position) {
    int32_t next = symbol(position).next;
    if (next < 0) return PairTable::kAbsent;
    return merges_.find(
        PairTable::key(static_cast<uint32_t>(symbol(position).id), static_cast<uint32_t>(symbol(next).id)));
  };

  std::priority_queue<Merge, std::vector<Merge>, std::greater<>> queue;
  auto push = [&](int32_t position) {
    uint64_t found = merge_at(position);
    if (found == PairTable::kAbsent) return;
    queue.push({(found >> 32 << 32) | static_cast<uint32_t>(position), static_cast<int32_t>(found & 0xffffffffu)});
  };
  for (int32_t i = 0; i + 1 < count; ++i) push(i);

  while (!queue.empty()) {
    Merge top = queue.top();
    queue.pop();
    auto position = static_cast<int32_t>(top.order & 0xffffffffu);
    Symbol& left = symbol(position);
    if (left.merged_away) continue;
    uint64_t current = merge_at(position);
    // The neighbour may have changed; as in tokenizers, the merge is valid if it still gives the same token.
    if (current == PairTable::kAbsent || static_cast<int32_t>(current & 0xffffffffu) != top.id) continue;
    Symbol& right = symbol(left.next);
    left.id = top.id;
    left.next = right.next;
    right.merged_away = true;
    if (left.next >= 0) symbol(left.next).previous = position;
    if (left.previous >= 0) push(left.previous);
    push(position);
  }

  ids.clear();
  for (const Symbol& one : symbols)
    if (!one.merged_away) ids.push_back(one.id);
}

}  // namespace gptq
