// Converts the tokenizers of repositories without a tokenizer.json to that format.
#pragma once

#include <filesystem>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

// The tokenizer.json that transformers 5 makes from a folder's tokenizer.model (SentencePiece BPE), or from its
// vocab.json and merges.txt (GPT-2), with the special tokens of tokenizer_config.json, special_tokens_map.json and
// added_tokens.json. Null if the folder has neither. Throws InputError for a broken file, UnsupportedError for an
// unsupported kind; both name the file.
nlohmann::json tokenizer_from_older_files(const std::filesystem::path& folder);

// The "model" of tokenizer.json and related parts from the bytes of a tokenizer.model (sentencepiece_model.proto).
nlohmann::json read_sentencepiece(std::string_view bytes);

}  // namespace gptq
