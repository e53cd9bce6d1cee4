#include "data/jinja/text.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include <utf8proc.h>

#include "data/message.h"

namespace gptq::jinja {
namespace {

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

char32_t simple_upper(char32_t c) { return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))); }
char32_t simple_title(char32_t c) { return static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))); }

// Whether it has case: Unicode's Cased, but for a few letter-like symbols.
bool is_cased(char32_t c) {
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LT;
}

bool is_title(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LT; }
bool is_upper_letter(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower_letter(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LL || c == 0xaa || c == 0xba; }

// Characters whose upper case has several, beyond those whose parts have one: Unicode's SpecialCasing.
constexpr std::pair<char32_t, std::string_view> kSpecialUpper[] = {{0xdf, "SS"},
                                                                   {0x149, "\u02bcN"},
                                                                   {0xfb00, "FF"},
                                                                   {0xfb01, "FI"},
                                                                   {0xfb02, "FL"},
                                                                   {0xfb03, "FFI"},
                                                                   {0xfb04, "FFL"},
                                                                   {0xfb05, "ST"},
                                                                   {0xfb06, "ST"},
                                                                   {0x587, "\u0535\u0552"},
                                                                   {0x1e9a, "A\u02be"},
                                                                   {0xfb13, "\u0544\u0546"},
                                                                   {0xfb14, "\u0544\u0535"},
                                                                   {0xfb15, "\u0544\u053b"},
                                                                   {0xfb16, "\u054e\u0546"},
                                                                   {0xfb17, "\u0544\u053d"}};

void append_upper(std::string& text, char32_t c) {
  for (const auto& [special, upper] : kSpecialUpper) {
    if (c != special) continue;
    text += upper;
    return;
  }
  const char32_t upper = simple_upper(c);
  const bool has_iota = c >= 0x1f80 && c <= 0x1fff && (is_title(c) || is_title(upper));
  if (!has_iota && (upper != c || c < 0x100 || !is_lower_letter(c))) return append_utf8(text, upper);
  // A letter with accents and no capital of its own, or with an iota below, which becomes a letter: their capitals.
  std::string letter, capitals;
  append_utf8(letter, c);
  const std::string parts = normalize(letter, NormalForm::kNfd);
  for (size_t at = 0; at < parts.size();) append_utf8(capitals, simple_upper(next_character(parts, at)));
  text += has_iota ? normalize(capitals, NormalForm::kNfc) : capitals;
}

void append_title(std::string& text, char32_t c) {
  std::string upper;
  append_upper(upper, c);
  if (length(upper) == 1 || is_title(simple_upper(c))) return append_utf8(text, simple_title(c));
  size_t at = 0;
  append_utf8(text, next_character(upper, at));
  text += lower(std::string_view(upper).substr(at));
}

// A capital sigma is final if a letter is before it and none is after it.
void append_lower_at(std::string& text, std::string_view all, size_t start, size_t end, char32_t c) {
  constexpr char32_t kCapitalSigma = 0x3a3, kFinalSigma = 0x3c2;
  if (c != kCapitalSigma) return append_lower_case(text, c);
  const auto is_ignored = [](char32_t other) {
    const auto kind = category(other);
    return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_LM || other == '\'' || other == '.' ||
           other == ':' || other == 0x2019 || other == 0xad;
  };
  bool before = false, after = false;
  for (size_t at = start; at > 0;) {
    const char32_t other = previous_character(all, at);
    if (is_ignored(other)) continue;
    before = is_cased(other);
    break;
  }
  for (size_t at = end; at < all.size();) {
    const char32_t other = next_character(all, at);
    if (is_ignored(other)) continue;
    after = is_cased(other);
    break;
  }
  before && !after ? append_utf8(text, kFinalSigma) : append_lower_case(text, c);
}

// Whether a text has letters of one case, and none of the other or of titles.
bool has_only_case(std::string_view text, bool (*is_wanted)(char32_t), bool (*is_other)(char32_t)) {
  bool found = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (is_other(c) || is_title(c)) return false;
    found |= is_wanted(c);
  }
  return found;
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool ends_line(char32_t c) {
  return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

}  // namespace

int64_t length(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xc0) != 0x80; });
}

size_t byte_at(std::string_view text, int64_t position) {
  size_t at = 0;
  for (; position > 0 && at < text.size(); --position) next_character(text, at);
  return at;
}

std::string_view part(std::string_view text, int64_t start, int64_t stop) {
  const size_t first = byte_at(text, start);
  return text.substr(first, stop > start ? byte_at(text.substr(first), stop - start) : 0);
}

bool is_space(char32_t c) { return is_whitespace(c) || (c >= 0x1c && c <= 0x1f); }

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> characters) {
  const auto is_stripped = [&](size_t start, size_t end, char32_t c) {
    return characters ? characters->find(text.substr(start, end - start)) != std::string_view::npos : is_space(c);
  };
  size_t start = 0, end = text.size();
  while (side != Side::kRight && start < end) {
    size_t at = start;
    const char32_t c = next_character(text, at);
    if (!is_stripped(start, at, c)) break;
    start = at;
  }
  while (side != Side::kLeft && end > start) {
    size_t at = end;
    const char32_t c = previous_character(text, at);
    if (!is_stripped(at, end, c)) break;
    end = at;
  }
  return text.substr(start, end - start);
}

std::string upper(std::string_view text) {
  std::string made;
  for (size_t at = 0; at < text.size();) append_upper(made, next_character(text, at));
  return made;
}

std::string lower(std::string_view text) {
  std::string made;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = next_character(text, at);
    append_lower_at(made, text, start, at, c);
  }
  return made;
}

std::string title(std::string_view text) {
  std::string made;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = next_character(text, at);
    if (in_word) {
      append_lower_at(made, text, start, at, c);
    } else {
      append_title(made, c);
    }
    in_word = is_cased(c);
  }
  return made;
}

std::string capitalize(std::string_view text) {
  std::string made;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = next_character(text, at);
    if (start == 0) {
      append_title(made, c);
    } else {
      append_lower_at(made, text, start, at, c);
    }
  }
  return made;
}

std::string swap_case(std::string_view text) {
  std::string made;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = next_character(text, at);
    if (is_upper_letter(c)) {
      append_lower_at(made, text, start, at, c);
    } else if (is_lower_letter(c)) {
      append_upper(made, c);
    } else {
      append_utf8(made, c);
    }
  }
  return made;
}

std::vector<std::string_view> split(std::string_view text, std::optional<std::string_view> separator, int64_t limit) {
  std::vector<std::string_view> parts;
  if (separator) {
    for (size_t at; limit != 0 && (at = text.find(*separator)) != std::string_view::npos; --limit) {
      parts.push_back(text.substr(0, at));
      text.remove_prefix(at + separator->size());
    }
    parts.push_back(text);
    return parts;
  }
  for (text = strip(text, Side::kLeft); !text.empty(); text = strip(text, Side::kLeft)) {
    if (limit-- == 0) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    for (size_t at = 0; at < text.size() && !is_space(next_character(text, at));) end = at;
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return parts;
}

std::vector<std::string_view> split_right(std::string_view text, std::optional<std::string_view> separator,
                                          int64_t limit) {
  std::vector<std::string_view> parts;
  if (separator) {
    for (size_t at; limit != 0 && (at = text.rfind(*separator)) != std::string_view::npos; --limit) {
      parts.push_back(text.substr(at + separator->size()));
      text = text.substr(0, at);
    }
    parts.push_back(text);
  } else {
    for (text = strip(text, Side::kRight); !text.empty(); text = strip(text, Side::kRight)) {
      if (limit-- == 0) {
        parts.push_back(text);
        break;
      }
      size_t start = text.size();
      for (size_t at = text.size(); at > 0 && !is_space(previous_character(text, at));) start = at;
      parts.push_back(text.substr(start));
      text = text.substr(0, start);
    }
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  for (size_t start = 0, at = 0; at < text.size();) {
    const size_t end = at;
    const char32_t c = next_character(text, at);
    if (!ends_line(c)) {
      if (at == text.size()) lines.push_back(text.substr(start));
      continue;
    }
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(start, (keep_ends ? at : end) - start));
    start = at;
  }
  return lines;
}

size_t replaced_size(std::string_view text, std::string_view from, std::string_view to, int64_t count) {
  size_t matches = 0;
  const auto most = static_cast<uint64_t>(count);  // all if it is negative
  if (from.empty()) {
    matches = std::min<uint64_t>(most, static_cast<uint64_t>(length(text)) + 1);
  } else {
    for (size_t at = text.find(from); matches < most && at != text.npos; at = text.find(from, at + from.size()))
      ++matches;
  }
  return text.size() + matches * to.size() - matches * from.size();
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, int64_t count) {
  std::string made;
  size_t copied = 0;
  if (from.empty()) {
    for (size_t at = 0; count != 0; --count) {
      made += to;
      if (at == text.size()) break;
      next_character(text, at);
      made += text.substr(copied, at - copied);
      copied = at;
    }
  } else {
    for (size_t at; count != 0 && (at = text.find(from, copied)) != text.npos; --count) {
      made.append(text, copied, at - copied).append(to);
      copied = at + from.size();
    }
  }
  return made.append(text, copied, text.npos);
}

bool is_all(std::string_view text, bool (*has_property)(char32_t)) {
  for (size_t at = 0; at < text.size();)
    if (!has_property(next_character(text, at))) return false;
  return !text.empty();
}

bool is_letter(char32_t c) {
  return is_cased(c) || category(c) == UTF8PROC_CATEGORY_LM || category(c) == UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

bool is_digit(char32_t c) {
  return is_decimal(c) || c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 || (c >= 0x2074 && c <= 0x2079) ||
         (c >= 0x2080 && c <= 0x2089) || (c >= 0x2460 && c <= 0x2468);
}

bool is_upper_case(std::string_view text) { return has_only_case(text, is_upper_letter, is_lower_letter); }

bool is_lower_case(std::string_view text) { return has_only_case(text, is_lower_letter, is_upper_letter); }

std::string quoted(std::string_view text) {
  const char quote = text.find('\'') != text.npos && text.find('"') == text.npos ? '"' : '\'';
  std::string made(1, quote);
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      made += {'\\', static_cast<char>(c)};
    } else if (c == '\n' || c == '\r' || c == '\t') {
      made += {'\\', c == '\n' ? 'n' : c == '\r' ? 'r' : 't'};
    } else if (is_printable(c)) {
      append_utf8(made, c);
    } else {
      std::array<char, 16> digits{};
      const char* form = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
      std::snprintf(digits.data(), digits.size(), form, static_cast<unsigned>(c));
      made += digits.data();
    }
  }
  return made += quote;
}

std::string shown(std::string_view text) {
  std::string made = excerpt(text);
  for (char& c : made)
    if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) c = ' ';
  return made;
}

std::string escape_html(std::string_view text) {
  std::string made;
  for (const char c : text) {
    switch (c) {
      case '&':
        made += "&amp;";
        break;
      case '<':
        made += "&lt;";
        break;
      case '>':
        made += "&gt;";
        break;
      case '"':
        made += "&#34;";
        break;
      case '\'':
        made += "&#39;";
        break;
      default:
        made += c;
    }
  }
  return made;
}

}  // namespace gptq::jinja
