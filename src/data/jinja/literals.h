// Literals of numbers and strings, as Jinja reads them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace gptq::jinja {

struct NumberLiteral {
  std::string digits;  // decimal
  bool is_float = false;
  size_t end = 0;       // behind it
  std::string trouble;  // why it cannot be used, or empty
};

// The number that starts at a byte of a template.
NumberLiteral read_number_literal(std::string_view text, size_t start);

// Appends a string without its escapes. Returns why it cannot be used, or "".
std::string unescape(std::string_view text, std::string& made);

}  // namespace gptq::jinja
