// The model of a tokenizer: words to token ids.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/budget.h"

namespace gptq {

struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using Vocabulary = std::unordered_map<std::string, int32_t, TextHash, std::equal_to<>>;

// Ids of words encoded before. Owned by one call, so that encoding needs no lock.
struct WordCache {
  struct Range {
    size_t start, end;
  };
  std::unordered_map<std::string, Range, TextHash, std::equal_to<>> words;
  std::vector<int32_t> ids;
};

class TokenizerModel {
 public:
  virtual ~TokenizerModel() = default;
  // Appends the ids of one word (valid UTF-8). Throws InputError if its text exceeds the budget.
  virtual void encode(std::string_view word, WordCache& cache, Budget& budget, std::vector<int32_t>& ids) const = 0;
  virtual int32_t token_id(std::string_view token) const = 0;  // -1 if none
  virtual const std::string* token(int32_t id) const = 0;      // null if none
  virtual int64_t size() const = 0;
};

// From tokenizer.json's "model". Throws UnsupportedError for another model or an unknown option.
std::unique_ptr<TokenizerModel> make_tokenizer_model(const nlohmann::json& description);

}  // namespace gptq
