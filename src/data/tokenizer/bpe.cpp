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

namespace gptq {
namespace {

using nlohmann::json;

// Words of at most this many bytes are encoded whole; longer ones are split where no token joins.
constexpr size_t kLongWord = 64;
// Longer parts are not cached, as they hardly recur.
constexpr size_t kCachedLength = 256;

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

BytePairEncoding::BytePairEncoding(const json& model) {
  std::string type = model.value("type", "BPE");
  const bool derives_merges = model.value("merges_follow_ids", false);
  if (type != "BPE" || (!model.contains("merges") && !derives_merges))
    throw UnsupportedError(cat("the model \"", excerpt(type), "\" is not supported"));
  for (const char* option : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"})
    if (is_set(model, option))
      throw UnsupportedError(cat("the option \"", option, "\" of model \"BPE\" is not supported"));
  fuse_unknown_ = model.value("fuse_unk", false);
  ignore_merges_ = model.value("ignore_merges", false);

  vocabulary_.read(model.at("vocab"));

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
  if (derives_merges)
    merges_.derive(vocabulary_);
  else
    merges_.read(model.at("merges"), vocabulary_);
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
  bool previous_known = vocabulary_.id_of(previous) >= 0;
  while (at < word.size()) {
    size_t boundary = at;
    char32_t next = next_character(word, at);
    bool known = vocabulary_.id_of(next) >= 0;
    if (known && previous_known && !merges_.joins(previous, next)) {
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
    if (int32_t id = vocabulary_.id_of(next_character(word, at)); id >= 0) {
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
    return merges_.find(symbol(position).id, symbol(next).id);
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
