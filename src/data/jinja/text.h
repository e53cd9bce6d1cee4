// Python's operations on strings, for UTF-8: positions and lengths count code points.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/unicode.h"

namespace gptq::jinja {

int64_t length(std::string_view text);
// The byte at which a code point starts; the end for positions beyond it.
size_t byte_at(std::string_view text, int64_t position);
// text[start:stop] with start and stop in code points from 0.
std::string_view part(std::string_view text, int64_t start, int64_t stop);

bool is_space(char32_t character);  // str.isspace()

enum class Side { kLeft, kRight, kBoth };
// Without white space, or without the given characters.
std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> characters = std::nullopt);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string title(std::string_view text);       // str.title()
std::string capitalize(std::string_view text);  // str.capitalize()
std::string swap_case(std::string_view text);

// str.split() and rsplit(): by white space, or by a separator, which is not empty. At most `limit` cuts if that is not
// negative.
std::vector<std::string_view> split(std::string_view text, std::optional<std::string_view> separator, int64_t limit);
std::vector<std::string_view> split_right(std::string_view text, std::optional<std::string_view> separator,
                                          int64_t limit);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends = false);

// The bytes that str.replace() makes of a text, of which `count` (negative: all) matches are replaced.
size_t replaced_size(std::string_view text, std::string_view from, std::string_view to, int64_t count);
std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t count);

// str.isdigit() and the like.
bool is_all(std::string_view text, bool (*has_property)(char32_t));
bool is_letter(char32_t character);
bool is_digit(char32_t character);    // isdigit: decimal digits and superscripts
bool is_decimal(char32_t character);  // isdecimal
bool is_upper_case(std::string_view text);
bool is_lower_case(std::string_view text);

std::string quoted(std::string_view text);       // repr()
std::string shown(std::string_view text);        // the start of a text, in one line, for an error
std::string escape_html(std::string_view text);  // & < > " '

}  // namespace gptq::jinja
