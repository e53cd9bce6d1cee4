// Tokenizers of repositories without a tokenizer.json, put into its words.
#pragma once

#include <filesystem>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

// The tokenizer.json that transformers 5 makes of a folder's tokenizer.model (SentencePiece, a byte pair encoding), or
// of its vocab.json and merges.txt (GPT-2), with the special tokens that tokenizer_config.json, special_tokens_map.json
// and added_tokens.json name. Null where the folder has neither. Throws InputError for a broken file, UnsupportedError
// for a kind that is not known; the sentence names the file.
nlohmann::json tokenizer_from_older_files(const std::filesystem::path& folder);

// tokenizer.json's "model" and what belongs to it, of the bytes of a tokenizer.model (sentencepiece_model.proto).
nlohmann::json read_sentencepiece(std::string_view bytes);

}  // namespace gptq
