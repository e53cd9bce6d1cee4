// Added tokens: texts such as <|endoftext|> that stand for one token wherever they occur, outside of the model.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/bpe.h"
#include "data/tokenizer/normalizer.h"

namespace gptq {

struct AddedToken {
  std::string content;
  std::string text;  // what it is in normalized text, and when decoded: content, normalized if the token is
  int32_t id = -1;
  bool single_word = false, lstrip = false, rstrip = false, normalized = false, special = false;
};

class AddedTokens {
 public:
  // From tokenizer.json's "added_tokens". A token that the model has keeps the model's id; others are numbered after
  // it.
  AddedTokens(const nlohmann::json& description, const TokenizerModel& model, const Normalizer& normalizer);

  // Hands on the stretches of `text` between added tokens (id -1) and the added tokens, in order. `normalized` says
  // which tokens are looked for: those that match normalized text, or the others. `start` is the stretch's offset in
  // `text`.
  using Sink = std::function<void(std::string_view stretch, size_t start, int32_t id)>;
  void split(std::string_view text, bool normalized, const Sink& sink) const;

  const AddedToken* find(std::string_view content) const;
  const AddedToken* find(int32_t id) const;

 private:
  // Finds the longest of its texts at a place.
  struct Trie {
    PairTable children;         // (node, byte) -> node
    std::vector<int32_t> ends;  // by node: index of the token that ends there, or -1
    std::vector<bool> first = std::vector<bool>(256);

    void insert(std::string_view text, int32_t token);
    int32_t longest(std::string_view text, size_t start, size_t& end) const;  // -1 for none
  };

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t, TextHash, std::equal_to<>> by_content_;
  std::unordered_map<int32_t, size_t> by_id_;
  Trie plain_, normalized_;
};

}  // namespace gptq
