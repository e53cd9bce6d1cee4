// The regular expressions of tokenizer.json: Oniguruma's Ruby syntax, run by PCRE2.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <nlohmann/json_fwd.hpp>
#include <pcre2.h>

#include "data/tokenizer/budget.h"

namespace gptq {

// Translates an Oniguruma pattern to PCRE2: character classes are Unicode's, classes nest and intersect, intervals are
// never possessive. Throws UnsupportedError for an unterminated character class, and for what would not keep to
// characters and to bounds: \C, verbs such as (*LIMIT_MATCH=1), very long patterns, very deep classes.
std::string translate_oniguruma(std::string_view pattern);

using MatchSink = std::function<void(size_t start, size_t end)>;

class Regex {
 public:
  // Throws UnsupportedError for a pattern that PCRE2 does not compile.
  explicit Regex(std::string_view pattern);

  // Calls `found` for every match in `text` (valid UTF-8) from left to right; matches do not overlap, and an empty
  // match never touches the previous one. Throws InputError with the pattern if matching exceeds the budget.
  void for_each_match(std::string_view text, Budget& budget, const MatchSink& found) const;
  void for_each_match(std::string_view text, const MatchSink& found) const;  // with a budget of its own

 private:
  struct Release {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
    void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  };
  class Matcher;

  std::string pattern_;
  std::unique_ptr<pcre2_code, Release> code_;
  std::unique_ptr<pcre2_code, Release> counted_;  // the same with a callout before each item, which counts its steps
  std::unique_ptr<pcre2_match_context, Release> brief_;  // limits of a match with code_
  bool is_compiled_ = false;                             // to machine code
  bool looks_at_start_ = false;                          // has \G, so that a search must not be resumed
};

// The pattern of Split and Replace: {"String": text} or {"Regex": pattern}.
class TextPattern {
 public:
  explicit TextPattern(const nlohmann::json& description);
  void for_each_match(std::string_view text, Budget& budget, const MatchSink& found) const;

 private:
  std::string literal_;
  std::unique_ptr<Regex> regex_;  // null: literal_ is searched
};

}  // namespace gptq
