// The unigram model (Kudo, arXiv 1804.10959): splits a word so that the sum of its pieces' scores is largest.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/model.h"
#include "data/tokenizer/trie.h"

namespace gptq {

class Unigram final : public TokenizerModel {
 public:
  explicit Unigram(const nlohmann::json& model);

  // O(length * longest piece). Resolves ties as the tokenizers library does.
  void encode(std::string_view word, WordCache& cache, Budget& budget, std::vector<int32_t>& ids) const override;
  int32_t token_id(std::string_view token) const override;
  const std::string* token(int32_t id) const override;
  int64_t size() const override { return static_cast<int64_t>(pieces_.size()); }

 private:
  std::vector<int32_t> cut(std::string_view word, Budget& budget) const;

  std::vector<std::string> pieces_;
  std::vector<double> scores_;
  Vocabulary ids_;
  Trie trie_;                      // of the pieces
  std::vector<int32_t> byte_ids_;  // ids of <0x00> to <0xFF>; empty without byte fallback
  int32_t unknown_id_ = -1;
  double unknown_score_ = 0;
};

}  // namespace gptq
