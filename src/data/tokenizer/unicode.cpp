// Unicode functions on top of utf8proc, with fast paths for ASCII.
#include "data/tokenizer/unicode.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <utf8proc.h>

#include "base/error.h"

namespace gptq {
namespace {

struct Sequence {
  size_t length;  // bytes of the character, or of the maximal invalid part
  bool valid;
};

// The UTF-8 sequence at `offset`, by table 3-7 of the Unicode standard.
Sequence sequence_at(std::string_view bytes, size_t offset) {
  auto byte = [&](size_t i) { return i < bytes.size() ? static_cast<uint8_t>(bytes[i]) : uint8_t{0}; };
  uint8_t lead = byte(offset);
  if (lead < 0x80) return {1, true};
  size_t length = lead >= 0xc2 && lead <= 0xdf ? 2 : (lead & 0xf0) == 0xe0 ? 3 : lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
  if (length == 0) return {1, false};
  uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  for (size_t i = 1; i < length; ++i) {
    uint8_t next = byte(offset + i);
    if (next < low || next > high) return {i, false};
    low = 0x80, high = 0xbf;
  }
  return {length, true};
}

bool eight_ascii_bytes(const char* bytes) {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  return (word & 0x8080808080808080u) == 0;
}

bool in_category(char32_t character, std::initializer_list<utf8proc_category_t> categories) {
  auto category = utf8proc_category(static_cast<utf8proc_int32_t>(character));
  for (auto candidate : categories)
    if (category == candidate) return true;
  return false;
}

// Letters in circles and squares: alphabetic although their category is So.
bool is_enclosed_letter(char32_t c) {
  return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
         (c >= 0x1f170 && c <= 0x1f189);
}

// The decomposed characters of a text, with marks in canonical order. utf8proc_decompose() would do the same, but it
// takes time that grows with the square of a run of marks.
void decompose(std::string_view text, utf8proc_option_t options, std::vector<utf8proc_int32_t>& characters) {
  constexpr size_t kLongest = 32;  // characters of a decomposition: Unicode has 18
  const auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  characters.clear();
  int boundary = UTF8PROC_BOUNDCLASS_START;
  for (size_t at = 0; at < text.size();) {
    std::array<utf8proc_int32_t, kLongest> parts;
    const auto character = static_cast<utf8proc_int32_t>(next_character(text, at));
    const auto count = utf8proc_decompose_char(character, parts.data(), kLongest, options, &boundary);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(kLongest))
      throw Error(cat("cannot normalize text: ", utf8proc_errmsg(count)));
    characters.insert(characters.end(), parts.begin(), parts.begin() + count);
  }
  for (auto start = characters.begin(); start != characters.end();) {
    if (combining_class(*start) == 0) {
      ++start;
      continue;
    }
    auto end = start + 1;
    while (end != characters.end() && combining_class(*end) != 0) ++end;
    const auto comes_first = [&](auto left, auto right) { return combining_class(left) < combining_class(right); };
    if (!std::is_sorted(start, end, comes_first)) std::stable_sort(start, end, comes_first);
    start = end;
  }
}

}  // namespace

int64_t invalid_utf8_offset(std::string_view text) {
  for (size_t offset = 0; offset < text.size();) {
    if (offset + 8 <= text.size() && eight_ascii_bytes(text.data() + offset)) {
      offset += 8;
      continue;
    }
    Sequence sequence = sequence_at(text, offset);
    if (!sequence.valid) return static_cast<int64_t>(offset);
    offset += sequence.length;
  }
  return -1;
}

std::string lossy_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (size_t offset = 0; offset < bytes.size();) {
    Sequence sequence = sequence_at(bytes, offset);
    text += sequence.valid ? bytes.substr(offset, sequence.length) : std::string_view("\xef\xbf\xbd");
    offset += sequence.length;
  }
  return text;
}

char32_t next_character(std::string_view text, size_t& offset) {
  auto byte = [&] { return static_cast<uint8_t>(text[offset++]); };
  char32_t lead = byte();
  if (lead < 0x80) return lead;
  int following = lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
  char32_t character = lead & (0x3f >> following);
  for (int i = 0; i < following && offset < text.size(); ++i) character = character << 6 | (byte() & 0x3f);
  return character;
}

char32_t previous_character(std::string_view text, size_t& offset) {
  do --offset;
  while (offset > 0 && (static_cast<uint8_t>(text[offset]) & 0xc0) == 0x80);
  size_t start = offset;
  return next_character(text, start);
}

void append_utf8(std::string& text, char32_t character) {
  auto append = [&](char32_t byte) { text += static_cast<char>(byte); };
  auto follow = [&](int shift) { append(0x80 | (character >> shift & 0x3f)); };
  if (character < 0x80) {
    append(character);
  } else if (character < 0x800) {
    append(0xc0 | character >> 6), follow(0);
  } else if (character < 0x10000) {
    append(0xe0 | character >> 12), follow(6), follow(0);
  } else {
    append(0xf0 | character >> 18), follow(12), follow(6), follow(0);
  }
}

bool is_whitespace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
  return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
         c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return in_category(c, {UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_NO});
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return std::strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", static_cast<char>(c)) != nullptr && c != 0;
  return in_category(c, {UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PD, UTF8PROC_CATEGORY_PS, UTF8PROC_CATEGORY_PE,
                         UTF8PROC_CATEGORY_PI, UTF8PROC_CATEGORY_PF, UTF8PROC_CATEGORY_PO});
}

bool is_word(char32_t c) {
  if (c < 0x80) return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
  return in_category(c, {UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LT, UTF8PROC_CATEGORY_LM,
                         UTF8PROC_CATEGORY_LO, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_MC, UTF8PROC_CATEGORY_ME,
                         UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NL, UTF8PROC_CATEGORY_PC}) ||
         is_enclosed_letter(c) || c == 0x200c || c == 0x200d;
}

void append_lower_case(std::string& text, char32_t character) {
  constexpr char32_t kCapitalIWithDot = 0x130;  // the only character whose lower case has two
  append_utf8(text, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(character))));
  if (character == kCapitalIWithDot) append_utf8(text, 0x307);
}

std::string normalize(std::string_view text, NormalForm form) {
  int options = UTF8PROC_STABLE;
  bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  options |= compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;

  auto is_ascii = [&](size_t i) { return static_cast<uint8_t>(text[i]) < 0x80; };
  std::string normal;
  normal.reserve(text.size());
  std::vector<utf8proc_int32_t> characters;
  for (size_t start = 0; start < text.size();) {
    // Only a following character can change an ASCII one, so all but the last character of an ASCII run are copied.
    size_t end = start;
    while (end < text.size() && is_ascii(end)) ++end;
    if (end < text.size() && end > start) --end;
    normal += text.substr(start, end - start);
    start = end;
    if (start == text.size()) break;
    end = start + 1;
    while (end < text.size() && !(is_ascii(end) && (end + 1 == text.size() || is_ascii(end + 1)))) ++end;
    decompose(text.substr(start, end - start), static_cast<utf8proc_option_t>(options), characters);
    auto length = utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                                           static_cast<utf8proc_option_t>(options));
    if (length < 0) throw Error(cat("cannot normalize text: ", utf8proc_errmsg(length)));
    for (size_t i = 0; i < static_cast<size_t>(length); ++i) append_utf8(normal, static_cast<char32_t>(characters[i]));
    start = end;
  }
  return normal;
}

}  // namespace gptq
