// What messages say about contents of files, which may be long and of any kind.
#pragma once

#include <exception>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace gptq {

// The first characters of a text, with an ellipsis if there are more.
std::string excerpt(std::string_view text);
// A value: its excerpt, or "an array" or "an object".
std::string excerpt_of(const nlohmann::json& value);

// The sentence of an exception of the JSON library, without its number.
std::string reason_of(const std::exception& error);

}  // namespace gptq
