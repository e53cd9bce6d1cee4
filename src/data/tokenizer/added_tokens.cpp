// Finds added tokens with a trie: leftmost first, then longest.
#include "data/tokenizer/added_tokens.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/tokenizer/unicode.h"

namespace gptq {

AddedTokens::AddedTokens(const nlohmann::json& description, const TokenizerModel& model, const Normalizer& normalizer) {
  int64_t next_id = model.size();
  for (const auto& entry : description) {
    auto flag = [&](const char* name) { return entry.value(name, false); };
    AddedToken token;
    token.content = entry.at("content").get<std::string>();
    token.single_word = flag("single_word"), token.lstrip = flag("lstrip"), token.rstrip = flag("rstrip");
    token.normalized = flag("normalized"), token.special = flag("special");
    token.text = token.normalized ? normalizer.apply(token.content) : token.content;
    if (token.content.empty() || by_content_.contains(token.content)) continue;
    token.id = model.token_id(token.content);
    if (token.id < 0) token.id = static_cast<int32_t>(next_id++);
    by_content_.emplace(token.content, tokens_.size());
    by_id_.emplace(token.id, tokens_.size());
    tokens_.push_back(std::move(token));
  }
  // If two tokens have the same normalized text, a special one takes precedence, then the first one.
  for (bool special : {true, false})
    for (size_t i = 0; i < tokens_.size(); ++i) {
      const AddedToken& token = tokens_[i];
      if (token.special != special) continue;
      (token.normalized ? normalized_ : plain_).insert(token.text, static_cast<int32_t>(i));
    }
}

void AddedTokens::Trie::insert(std::string_view text, int32_t token) {
  if (text.empty()) return;
  if (ends.empty()) ends.push_back(-1);
  first[static_cast<uint8_t>(text[0])] = true;
  uint32_t node = 0;
  for (char byte : text) {
    uint64_t key = PairTable::key(node, static_cast<uint8_t>(byte));
    uint64_t child = children.find(key);
    if (child == PairTable::kAbsent) {
      child = ends.size();
      children.insert(key, child);
      ends.push_back(-1);
    }
    node = static_cast<uint32_t>(child);
  }
  if (ends[node] < 0) ends[node] = token;
}

int32_t AddedTokens::Trie::longest(std::string_view text, size_t start, size_t& end) const {
  int32_t token = -1;
  uint32_t node = 0;
  for (size_t at = start; at < text.size();) {
    uint64_t child = children.find(PairTable::key(node, static_cast<uint8_t>(text[at++])));
    if (child == PairTable::kAbsent) break;
    node = static_cast<uint32_t>(child);
    if (ends[node] >= 0) token = ends[node], end = at;
  }
  return token;
}

void AddedTokens::split(std::string_view text, bool normalized, const Sink& sink) const {
  const Trie& trie = normalized ? normalized_ : plain_;
  size_t covered = 0;
  auto word_before = [&](size_t at) { return at > 0 && is_word(previous_character(text, at)); };
  auto word_after = [&](size_t at) { return at < text.size() && is_word(next_character(text, at)); };
  for (size_t at = 0; at < text.size();) {
    size_t start = at, end = 0;
    int32_t found = trie.first[static_cast<uint8_t>(text[at])] ? trie.longest(text, at, end) : -1;
    if (found < 0) {
      ++at;
      continue;
    }
    at = end;
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    if (token.single_word && (word_before(start) || word_after(end))) continue;
    if (token.lstrip) {
      for (size_t left = start; left > 0 && is_whitespace(previous_character(text, left));) start = left;
      start = std::max(start, covered);
    }
    if (token.rstrip)
      for (size_t right = end; right < text.size() && is_whitespace(next_character(text, right));) end = right;
    if (covered < start) sink(text.substr(covered, start - covered), covered, -1);
    sink(text.substr(std::min(start, end), end - std::min(start, end)), start, token.id);
    covered = end;
  }
  if (covered < text.size()) sink(text.substr(covered), covered, -1);
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(int32_t id) const {
  auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace gptq
