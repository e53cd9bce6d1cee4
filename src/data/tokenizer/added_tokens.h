// Added tokens: texts such as <|endoftext|> that become one token wherever they occur, before the model sees the text.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/budget.h"
#include "data/tokenizer/model.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/trie.h"

namespace gptq {

struct AddedToken {
  std::string content;
  std::string text;  // its text when decoded and in normalized text: the content, normalized if the token is
  int32_t id = -1;
  bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
};

class AddedTokens {
 public:
  // From tokenizer.json's "added_tokens". A token of the model's vocabulary keeps its id; others are numbered after the
  // vocabulary, other than those with "keeps_id", which is no key of such a file (tokenizer/tiktoken.h).
  AddedTokens(const nlohmann::json& description, const TokenizerModel& model, const Normalizer& normalizer);

  // Splits `text` at added tokens and passes its parts to the sink in order: added tokens with their id, others with
  // -1, `start` being the offset in `text`. `normalized` selects the tokens that match normalized text, or the others.
  using Sink = std::function<void(std::string_view part, size_t start, int32_t id)>;
  void split(std::string_view text, bool normalized, Budget& budget, const Sink& sink) const;

  const AddedToken* find(std::string_view content) const;
  const AddedToken* find(int32_t id) const;

 private:
  // The texts of some of the tokens, and their indices.
  struct Texts {
    Trie trie;
    std::vector<bool> first = std::vector<bool>(256);  // by byte: a text starts with it

    void insert(std::string_view text, int32_t token);
    // The token with the longest text at an offset; -1 if there is none.
    int32_t longest(std::string_view text, size_t start, size_t& end, Budget& budget) const;
  };

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t, TextHash, std::equal_to<>> by_content_;
  std::unordered_map<int32_t, size_t> by_id_;
  Texts plain_, normalized_;
};

}  // namespace gptq
