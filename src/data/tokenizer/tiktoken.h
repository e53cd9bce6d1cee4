// Vocabularies of tiktoken, as text files of repositories without a tokenizer.json, and Mistral's tekken.json, which
// holds one: converted to the format of tokenizer.json.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

// Whether bytes are lines of a token in base64 and its rank.
bool is_tiktoken(std::string_view bytes);

// A folder's tokenizer from its tiktoken file. How it splits text into words, and its special tokens, follow from the
// class that tokenizer_config.json names: those of Kimi, Qwen 1 and GLM-4 have rules of their own; without a class of
// the repository's own it is as in transformers' TikTokenConverter. Throws UnsupportedError for other classes, and for
// a vocabulary without all bytes; InputError for a broken file.
nlohmann::json tokenizer_from_tiktoken(const std::filesystem::path& folder, const std::string& file);

// A folder's tokenizer from tekken.json: the pattern and the special tokens are in it. A text begins with "<s>".
// Special tokens are found in texts, which mistral-common leaves to its requests.
nlohmann::json tokenizer_from_tekken(const std::filesystem::path& folder);

}  // namespace gptq
