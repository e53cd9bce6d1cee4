// Unicode for tokenizers: UTF-8, character classes, normal forms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace gptq {

// Offset of the first byte that does not belong to valid UTF-8, or -1. Surrogates and overlong forms are invalid.
int64_t invalid_utf8_offset(std::string_view text);

// `bytes` with every maximal invalid part replaced by U+FFFD.
std::string lossy_utf8(std::string_view bytes);

// The character at `offset` of valid UTF-8; moves `offset` past it. Of other bytes some character, at most at the end.
char32_t next_character(std::string_view text, size_t& offset);
// The character that ends at `offset` of valid UTF-8; moves `offset` to its start. Of other bytes some character, at
// least at the start of the text.
char32_t previous_character(std::string_view text, size_t& offset);

void append_utf8(std::string& text, char32_t character);

bool is_whitespace(char32_t character);   // property White_Space
bool is_numeric(char32_t character);      // categories Nd, Nl, No
bool is_punctuation(char32_t character);  // categories P*, and ASCII punctuation and symbols
bool is_word(char32_t character);         // letters, marks, decimal digits, connectors, joiners: \w of Unicode's UTS 18

// Appends a character's full lower case, independent of its neighbours (no final sigma).
void append_lower_case(std::string& text, char32_t character);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string normalize(std::string_view text, NormalForm form);

}  // namespace gptq
