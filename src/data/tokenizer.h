// tokenizer.json of the Hugging Face tokenizers library, with BPE (byte-level and SentencePiece-style) and Unigram
// models. Parts of other types are refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gptq {

class Tokenizer {
 public:
  // Reads FOLDER/tokenizer.json, with the tokens that only tokenizer_config.json names; or else tekken.json, the older
  // tokenizer.model, a vocabulary of tiktoken (tiktoken.model, NAME.tiktoken), or vocab.json and merges.txt. Throws
  // InputError if all are missing or a file is broken, UnsupportedError with the part (normalizer, pre-tokenizer, model
  // or post-processor) whose type is not supported; both say that ready input_ids work without a tokenizer.
  explicit Tokenizer(const std::filesystem::path& folder);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  // Token ids of a UTF-8 text, equal to tokenizers' encode(text, add_special_tokens). Throws InputError for invalid
  // UTF-8, with the byte offset.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  // Text of token ids; equal to tokenizers' decode().
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens = true) const;
  // The model folder.
  const std::filesystem::path& folder() const;
  // The id of the token with this exact text (special tokens included), or -1.
  int32_t token_id(std::string_view token) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Opens a folder's tokenizer when first called, as inputs of token ids need none. Copies of the function share it.
std::function<const Tokenizer&()> tokenizer_of(const std::filesystem::path& folder);

}  // namespace gptq
