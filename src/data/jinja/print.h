// How values are written: as Python's str() and repr() do, and as JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "data/jinja/value.h"

namespace gptq::jinja {

// str(): a text as it is, the empty text for a missing value.
Text to_text(Memory& memory, const Value& value);
std::string repr(Memory& memory, const Value& value);

// The shortest decimal that reads back as the same number, as Python's repr(); "inf", "nan".
std::string to_decimal(double number);

// json.dumps() with these options. `indent`: what each level is indented by; without it there are no new lines.
struct JsonStyle {
  std::optional<std::string> indent;
  std::string_view item_separator, key_separator;
  bool ascii = false, sorted = false;
};
std::string to_json(Memory& memory, const Value& value, const JsonStyle& style);

}  // namespace gptq::jinja
