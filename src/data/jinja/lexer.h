// Cuts a template into tokens, with Jinja's rules for white space around blocks (trim_blocks and lstrip_blocks on).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gptq::jinja {

struct Token {
  enum class Kind {
    kData,
    kPrintBegin,
    kPrintEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kText,
    kInteger,
    kFloat,
    kSign,
    kEnd
  };
  Kind kind = Kind::kEnd;
  int line = 1;
  std::string text;  // a literal's characters, unescaped; a number's digits
};

// Throws UnsupportedError, with the line, for what Jinja cannot read either.
std::vector<Token> tokens_of(std::string_view source);

// What an error calls a token.
std::string name_of(const Token& token);

// An error about a line of the template.
[[noreturn]] void refuse_line(int line, const std::string& sentence);

}  // namespace gptq::jinja
