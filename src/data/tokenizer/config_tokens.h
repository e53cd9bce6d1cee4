// Tokens that a tokenizer.json lacks and the files beside it name.
#pragma once

#include <filesystem>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

// Adds to "added_tokens" of a tokenizer.json what transformers adds when it opens the folder, in this order: the tokens
// of added_tokens_decoder in tokenizer_config.json; the named special tokens there ("bos_token", ...), or in
// special_tokens_map.json if there is no added_tokens_decoder; extra_special_tokens. Those that are there stay as they
// are. Throws InputError for a broken file.
void add_config_tokens(const std::filesystem::path& folder, nlohmann::json& tokenizer);

// A token of added_tokens_decoder, by its id there, as "added_tokens" has it.
nlohmann::json added_token_of(const std::string& id, const nlohmann::json& token);

}  // namespace gptq
