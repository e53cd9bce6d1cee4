// A JSON object of scalars as people write it on the command line: its order kept, and no key twice.
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

// At least one. Throws InputError, naming `where`, for what is not such an object or has a key twice.
std::vector<Setting> read_settings(std::string_view text, const std::string& where);

// Without white space around it.
std::string_view trimmed(std::string_view text);

}  // namespace gptq
