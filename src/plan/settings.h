// A JSON object of scalars from the command line, with its order and without duplicate keys.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "io/checkpoint.h"

namespace gptq {

struct Setting {
  std::string key;
  Json value;  // null, a boolean, a number or a string
};

// Returns at least one setting. Throws InputError, naming `where`, for other text or a duplicate key.
std::vector<Setting> read_settings(std::string_view text, const std::string& where);

// `text` without surrounding white space.
std::string_view trimmed(std::string_view text);

}  // namespace gptq
