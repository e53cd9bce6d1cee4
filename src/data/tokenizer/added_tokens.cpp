// Finds added tokens with a trie: leftmost first, then longest.
#include "data/tokenizer/added_tokens.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/unicode.h"
#include "data/tokenizer/values.h"

namespace gptq {

AddedTokens::AddedTokens(const nlohmann::json& description, const TokenizerModel& model, const Normalizer& normalizer) {
  if (!description.is_null() && !description.is_array())
    throw InputError(cat("its \"added_tokens\" is ", excerpt_of(description), " where an array was expected"));
  int64_t next_id = model.size();
  size_t bytes = 0;
  for (const auto& entry : description) bytes += entry.at("content").get_ref<const std::string&>().size();
  Budget budget(bytes);
  for (const auto& entry : description) {
    auto flag = [&](const char* name) { return entry.value(name, false); };
    AddedToken token;
    token.content = entry.at("content").get<std::string>();
    token.single_word = flag("single_word"), token.lstrip = flag("lstrip"), token.rstrip = flag("rstrip");
    token.normalized = flag("normalized"), token.special = flag("special");
    if (invalid_utf8_offset(token.content) >= 0)
      throw InputError(cat("the added token ", tokens_.size(), " is not valid UTF-8"));
    token.text = token.normalized ? normalizer.apply(token.content, budget) : token.content;
    if (token.content.empty() || by_content_.contains(token.content)) continue;
    if (flag("keeps_id")) {
      token.id = token_id_of(entry.at("id"), "the added token", token.content);
      next_id = std::max(next_id, int64_t{token.id} + 1);
    } else if (token.id = model.token_id(token.content); token.id < 0) {
      token.id = static_cast<int32_t>(next_id++);
    }
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

void AddedTokens::Texts::insert(std::string_view text, int32_t token) {
  if (text.empty()) return;
  first[static_cast<uint8_t>(text[0])] = true;
  int32_t& number = trie.insert(text);
  if (number < 0) number = token;
}

int32_t AddedTokens::Texts::longest(std::string_view text, size_t start, size_t& end, Budget& budget) const {
  constexpr uint64_t kStepsPerByte = 8;
  int32_t token = -1;
  size_t at = start;
  for (uint32_t node = 0; at < text.size();) {
    node = trie.next(node, text[at++]);
    if (node == Trie::kNone) break;
    if (trie.number(node) >= 0) token = trie.number(node), end = at;
  }
  budget.spend(kStepsPerByte * (at - start), "the search for added tokens");
  return token;
}

void AddedTokens::split(std::string_view text, bool normalized, Budget& budget, const Sink& sink) const {
  const Texts& texts = normalized ? normalized_ : plain_;
  size_t covered = 0;
  size_t white_from = 0, white_to = 0;  // the last run of white space behind a token
  auto word_before = [&](size_t at) { return at > 0 && is_word(previous_character(text, at)); };
  auto word_after = [&](size_t at) { return at < text.size() && is_word(next_character(text, at)); };
  for (size_t at = 0; at < text.size();) {
    size_t start = at, end = 0;
    int32_t found = texts.first[static_cast<uint8_t>(text[at])] ? texts.longest(text, at, end, budget) : -1;
    if (found < 0) {
      ++at;
      continue;
    }
    at = end;
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    if (token.single_word && (word_before(start) || word_after(end))) continue;
    if (token.lstrip) {
      for (size_t left = start; left > covered && is_whitespace(previous_character(text, left));) start = left;
      start = std::max(start, covered);
    }
    if (token.rstrip) {
      if (end < white_from || end >= white_to) {
        white_from = white_to = end;
        for (size_t right = end; right < text.size() && is_whitespace(next_character(text, right));) white_to = right;
      }
      end = white_to;
    }
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
