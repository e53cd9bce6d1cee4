#include "data/jinja/literals.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <system_error>

#include "base/error.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

bool is_digit_in(char c, int base) {
  const int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : 99;
  return digit < base;
}

// The end of digits of a base, with single underscores between them.
size_t digits_end(std::string_view text, size_t at, int base) {
  const auto is_at = [&](size_t place) { return place < text.size() && is_digit_in(text[place], base); };
  while (is_at(at) || (at < text.size() && text[at] == '_' && is_at(at + 1))) ++at;
  return at;
}

NumberLiteral integer(std::string digits, int base, size_t end) {
  std::erase(digits, '_');
  int64_t value = 0;
  NumberLiteral made{.end = end};
  if (base == 10 && digits.size() > 1 && digits[0] == '0' && digits.find_first_not_of('0') != digits.npos)
    made.trouble = "an integer starts with 0";
  else if (std::from_chars(digits.data(), digits.data() + digits.size(), value, base).ec != std::errc())
    made.trouble = cat("the integer ", shown(digits), " is larger than the 64 bits that are supported");
  made.digits = std::to_string(value);
  return made;
}

// Appends the character of a code; false if there is none.
bool append_code(std::string& made, std::string_view digits, size_t count, int base) {
  uint32_t code = 0;
  const auto read = std::from_chars(digits.data(), digits.data() + digits.size(), code, base);
  if (digits.size() != count || read.ec != std::errc() || read.ptr != digits.data() + count) return false;
  if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
  append_utf8(made, code);
  return true;
}

}  // namespace

NumberLiteral read_number_literal(std::string_view text, size_t start) {
  const auto is_at = [&](size_t place) { return place < text.size() && is_digit_in(text[place], 10); };
  int base = 10;
  if (text[start] == '0' && start + 1 < text.size()) {
    const char letter = static_cast<char>(text[start + 1] | 0x20);
    base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
  }
  if (const size_t end = digits_end(text, start + 2, base); base != 10 && end > start + 2)
    return integer(std::string(text.substr(start + 2, end - start - 2)), base, end);
  const size_t whole = digits_end(text, start, 10);
  size_t end = whole;
  if (start == 0 || text[start - 1] != '.') {  // else the index of an item
    if (end < text.size() && text[end] == '.' && is_at(end + 1)) end = digits_end(text, end + 1, 10);
    if (end + 1 < text.size() && (text[end] | 0x20) == 'e') {
      const size_t sign = end + 1 + (text[end + 1] == '+' || text[end + 1] == '-' ? 1 : 0);
      if (is_at(sign)) end = digits_end(text, sign, 10);
    }
  }
  std::string digits(text.substr(start, end - start));
  if (end == whole) return integer(std::move(digits), 10, end);
  std::erase(digits, '_');
  return {.digits = std::move(digits), .is_float = true, .end = end};
}

std::string unescape(std::string_view text, std::string& made) {
  constexpr std::string_view kLetters = "abfnrtv\\'\"", kMeanings = "\a\b\f\n\r\t\v\\'\"";
  constexpr const char* kNoCharacter = "an escape in a string is not a character";
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '\\') {
      made += text[at++];
      continue;
    }
    const char c = text[at + 1];
    at += 2;
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (const size_t letter = kLetters.find(c); letter != kLetters.npos) {
      made += kMeanings[letter];
    } else if (digits > 0) {
      if (!append_code(made, text.substr(at, digits), digits, 16)) return kNoCharacter;
      at += digits;
    } else if (c >= '0' && c <= '7') {
      size_t end = at;
      while (end < text.size() && end < at + 2 && text[end] >= '0' && text[end] <= '7') ++end;
      if (!append_code(made, text.substr(at - 1, end - at + 1), end - at + 1, 8)) return kNoCharacter;
      at = end;
    } else if (c == 'N') {
      return "the escape \\N in a string is not supported";
    } else if (c != '\n') {
      made += {'\\', c};
    }
  }
  return "";
}

}  // namespace gptq::jinja
