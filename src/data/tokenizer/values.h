// Values of a tokenizer's files that need more than the right type. All functions throw InputError.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

// A token id: an integer from 0 to 2^30. `what` and `name` say what has it, for the message.
int32_t token_id_of(const nlohmann::json& value, std::string_view what, std::string_view name = "");

// An integer from 0 to `most`; -1 for any other value.
int64_t count_of(const nlohmann::json& value, int64_t most);

// A string of exactly one character.
std::string character_of(const nlohmann::json& value, std::string_view what);

// Refuses a normalizer or another part of more steps than any real one has. `list`: the key that "Sequence" has its
// steps under.
void require_few_steps(const nlohmann::json& description, std::string_view part, const char* list);

}  // namespace gptq
