// The byte pair encoding model: merges the characters of a word pair by pair, in the order of the list of merges.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "data/tokenizer/bpe_tables.h"
#include "data/tokenizer/model.h"

namespace gptq {

class BytePairEncoding final : public TokenizerModel {
 public:
  // From tokenizer.json's "model"; with "merges_follow_ids", which is no key of such a file, the merges are those of
  // tiktoken's vocabularies (tokenizer/tiktoken.h). Throws UnsupportedError for another model or an unknown option.
  explicit BytePairEncoding(const nlohmann::json& model);

  // Appends the ids of one word (valid UTF-8). O(n log n) in its length.
  void encode(std::string_view word, WordCache& cache, Budget& budget, std::vector<int32_t>& ids) const override;

  int32_t token_id(std::string_view token) const override { return vocabulary_.id(token); }
  const std::string* token(int32_t id) const override { return vocabulary_.token(id); }
  int64_t size() const override { return vocabulary_.size(); }

 private:
  void encode_part(std::string_view word, WordCache& cache, std::vector<int32_t>& ids) const;
  std::vector<int32_t> characters_to_ids(std::string_view word) const;
  void merge(std::vector<int32_t>& ids) const;

  BpeVocabulary vocabulary_;
  BpeMerges merges_;
  std::vector<int32_t> byte_ids_;  // ids of <0x00> to <0xFF> or -1; empty without byte fallback
  int32_t unknown_id_ = -1;
  bool has_unknown_ = false, fuse_unknown_ = false, ignore_merges_ = false;
};

}  // namespace gptq
