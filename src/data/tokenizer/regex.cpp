// Translates Oniguruma patterns to PCRE2 and runs them, compiled to machine code where PCRE2 can.
#include "data/tokenizer/regex.h"

#include <algorithm>
#include <array>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace gptq {
namespace {

// Oniguruma's \w, and the fractions and superscripts of Latin-1 that it adds outside brackets.
constexpr std::string_view kWordMembers =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
constexpr std::string_view kWordMembersAlone = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

// Oniguruma's \s, \w, \d and \h as members of a PCRE2 class.
struct Shorthand {
  char name;
  std::string_view members;
};
constexpr std::array<Shorthand, 4> kShorthands = {{
    {'s', R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})"},
    {'w', kWordMembers},
    {'d', R"(\p{Nd})"},
    {'h', "0-9A-Fa-f"},
}};

constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kCategoryNames = {{
    {"letter", "L"},
    {"mark", "M"},
    {"number", "N"},
    {"punctuation", "P"},
    {"symbol", "S"},
    {"separator", "Z"},
    {"other", "C"},
    {"digit", "Nd"},
    {"space", "Xps"},
}};

pcre2_code* compile(std::string_view pattern, int& error, size_t& offset) {
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  // Ruby's ^ and $ match at every line.
  constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_UTF_CHECK;
  return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), kOptions, &error, &offset,
                       context.get());
}

bool compiles(std::string_view pattern) {
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = compile(pattern, error, offset);
  pcre2_code_free(code);
  return code != nullptr;
}

std::string error_text(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string translate() {
    std::vector<size_t> groups;  // offset in out_ of each open group
    size_t atom = 0;             // offset in out_ of the last atom
    while (!at_end()) {
      char c = pattern_[position_];
      if (c == '\\') {
        atom = out_.size();
        out_ += escape();
      } else if (c == '[') {
        atom = out_.size();
        out_ += character_class();
      } else if (c == '(') {
        groups.push_back(out_.size());
        out_ += c, ++position_;
        while (!at_end() && pattern_[position_] == '?' && out_.back() == '(') copy_group_kind();
      } else if (c == ')') {
        if (!groups.empty()) atom = groups.back(), groups.pop_back();
        out_ += c, ++position_;
      } else if (c == '{') {
        interval(atom);
      } else if (c == '*' || c == '+' || c == '?') {
        out_ += c, ++position_;
      } else {
        atom = out_.size();
        copy_character();
      }
    }
    return std::move(out_);
  }

 private:
  bool at_end() const { return position_ >= pattern_.size(); }
  bool at(std::string_view text) const { return pattern_.substr(position_).starts_with(text); }

  void copy_character() {
    do out_ += pattern_[position_++];
    while (!at_end() && (static_cast<uint8_t>(pattern_[position_]) & 0xc0) == 0x80);
  }

  // Copies "(?" up to the start of the group's own pattern. Ruby's option m is PCRE2's s.
  void copy_group_kind() {
    out_ += pattern_[position_++];
    bool options = !at_end() && (std::isalpha(static_cast<uint8_t>(pattern_[position_])) || pattern_[position_] == '-');
    while (options && !at_end() && pattern_[position_] != ':' && pattern_[position_] != ')') {
      char c = pattern_[position_++];
      out_ += c == 'm' ? 's' : c;
    }
  }

  // {n,m}: {,m} starts at 0, and a following + repeats the interval instead of making it possessive.
  void interval(size_t atom) {
    size_t close = pattern_.find('}', position_);
    std::string_view inside =
        close == std::string_view::npos ? std::string_view() : pattern_.substr(position_ + 1, close - position_ - 1);
    bool is_interval = !inside.empty() && inside != "," && inside.find_first_not_of("0123456789,") == inside.npos;
    if (!is_interval) {
      out_ += "\\{", ++position_;
      return;
    }
    out_ += cat("{", inside.front() == ',' ? "0" : "", inside, "}");
    position_ = close + 1;
    if (!at_end() && pattern_[position_] == '+') {
      out_.insert(atom, "(?:");
      out_ += ")";
    }
  }

  // An escape outside a class.
  std::string escape() {
    auto [members, negated] = shorthand();
    if (members.empty()) return single_escape();
    std::string_view more = members == kWordMembers ? kWordMembersAlone : "";
    return cat(negated ? "[^" : "[", members, more, "]");
  }

  // The members of a shorthand such as \s or its complement \S, which is skipped. Empty if there is another escape.
  std::pair<std::string_view, bool> shorthand() {
    char c = position_ + 1 < pattern_.size() ? pattern_[position_ + 1] : '\0';
    for (const Shorthand& known : kShorthands) {
      bool negated = c == known.name + 'A' - 'a';
      if (c != known.name && !negated) continue;
      position_ += 2;
      return {known.members, negated};
    }
    return {};
  }

  // Any other escape, with the same meaning inside and outside brackets.
  std::string single_escape() {
    ++position_;
    if (at_end()) throw UnsupportedError("a regular expression that ends in a backslash is not supported");
    char c = pattern_[position_];
    if ((c == 'p' || c == 'P') && position_ + 1 < pattern_.size() && pattern_[position_ + 1] == '{') return property();
    if (c == 'u' && position_ + 4 < pattern_.size()) {
      std::string code(pattern_.substr(position_ + 1, 4));
      position_ += 5;
      return cat("\\x{", code, "}");
    }
    std::string copy = "\\";
    do copy += pattern_[position_++];
    while (!at_end() && (static_cast<uint8_t>(pattern_[position_]) & 0xc0) == 0x80);
    if (c == 'x' && !at_end() && pattern_[position_] == '{')
      while (!at_end() && copy.back() != '}') copy += pattern_[position_++];
    return copy;
  }

  // \p{Name}: scripts mean the Script property (PCRE2's plain name means Script_Extensions), categories may be long
  // names.
  std::string property() {
    bool negated = pattern_[position_] == 'P';
    size_t close = pattern_.find('}', position_);
    if (close == pattern_.npos) throw UnsupportedError("a regular expression with an unfinished \\p{ is not supported");
    std::string name(pattern_.substr(position_ + 2, close - position_ - 2));
    position_ = close + 1;
    if (name.starts_with('^')) negated = !negated, name.erase(0, 1);
    std::string lower = name;
    std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
    for (auto [full, brief] : kCategoryNames)
      if (lower == full) name = brief;
    if (name.size() > 2 && compiles(cat("\\p{sc:", name, "}"))) name = "sc:" + name;
    return cat(negated ? "\\P{" : "\\p{", name, "}");
  }

  // A bracketed class as a PCRE2 pattern for one character. Nested classes join, && intersects.
  std::string character_class() {
    ++position_;
    bool negated = !at_end() && pattern_[position_] == '^';
    if (negated) ++position_;
    std::vector<std::string> parts;  // parts of the intersection
    std::string members;
    std::vector<std::string> nested;
    auto finish_part = [&] {
      std::string simple = members.empty() ? "" : cat("[", members, "]");
      std::string any = simple;
      for (const std::string& one : nested) any += (any.empty() ? "" : "|") + one;
      parts.push_back(nested.empty() ? any : cat("(?:", any, ")"));
      members.clear(), nested.clear();
    };
    for (bool first = true;; first = false) {
      if (at_end())
        throw UnsupportedError(cat("the regular expression ", pattern_, " has an unfinished character class"));
      char c = pattern_[position_];
      if (c == ']' && !first) break;
      if (at("[:")) {
        size_t close = pattern_.find(":]", position_);
        if (close == pattern_.npos)
          throw UnsupportedError(cat("the regular expression ", pattern_, " is not supported"));
        std::string_view bracket = pattern_.substr(position_, close + 2 - position_);
        members += bracket == "[:punct:]" ? std::string_view(R"(\p{P}\p{S})") : bracket;
        position_ = close + 2;
      } else if (c == '[') {
        nested.push_back(character_class());
      } else if (at("&&")) {
        position_ += 2;
        finish_part();
      } else if (c == '\\') {
        auto [set, set_negated] = shorthand();
        if (set_negated) {
          nested.push_back(cat("[^", set, "]"));
        } else {
          members += set.empty() ? single_escape() : std::string(set);
        }
      } else {
        do members += pattern_[position_++];
        while (!at_end() && (static_cast<uint8_t>(pattern_[position_]) & 0xc0) == 0x80);
      }
    }
    ++position_;
    if (parts.empty() && nested.empty()) return cat(negated ? "[^" : "[", members, "]");
    finish_part();
    std::string all;
    for (size_t i = 0; i + 1 < parts.size(); ++i) all += cat("(?=", parts[i], ")");
    all += parts.back();
    return negated ? cat("(?:(?!", all, ")(?s:.))") : cat("(?:", all, ")");
  }

  std::string_view pattern_;
  size_t position_ = 0;
  std::string out_;
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern) { return Translator(pattern).translate(); }

Regex::Regex(std::string_view pattern) : pattern_(pattern) {
  std::string translated = translate_oniguruma(pattern);
  int error = 0;
  size_t offset = 0;
  code_.reset(compile(translated, error, offset));
  if (!code_)
    throw UnsupportedError(cat("the regular expression ", pattern_, " is not supported (", error_text(error), ")"));
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // if this fails, PCRE2 interprets the pattern
}

void Regex::for_each_match(std::string_view text, const MatchSink& found) const {
  constexpr size_t kJitStackStart = 32 << 10, kJitStackLimit = 256 << 20;
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code_.get(), nullptr), &pcre2_match_data_free);
  std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context(nullptr, &pcre2_match_context_free);
  std::unique_ptr<pcre2_jit_stack, decltype(&pcre2_jit_stack_free)> stack(nullptr, &pcre2_jit_stack_free);

  auto match = [&](size_t start) {
    return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start, PCRE2_NO_UTF_CHECK,
                       data.get(), context.get());
  };
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t last_end = kNone;
  for (size_t start = 0; start <= text.size();) {
    int result = match(start);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT && !stack) {
      context.reset(pcre2_match_context_create(nullptr));
      stack.reset(pcre2_jit_stack_create(kJitStackStart, kJitStackLimit, nullptr));
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
      result = match(start);
    }
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0)
      throw Error(cat("matching the tokenizer's regular expression ", pattern_, " failed at byte ", start,
                      " of a text of ", text.size(), " bytes: ", error_text(result)));
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data.get());
    if (bounds[0] == bounds[1] && bounds[1] == last_end) {
      do ++start;
      while (start < text.size() && (static_cast<uint8_t>(text[start]) & 0xc0) == 0x80);
      continue;
    }
    start = last_end = bounds[1];
    found(bounds[0], bounds[1]);
  }
}

TextPattern::TextPattern(const nlohmann::json& description) {
  if (description.contains("String")) {
    literal_ = description.at("String").get<std::string>();
  } else {
    regex_ = std::make_unique<Regex>(description.at("Regex").get<std::string>());
  }
}

void TextPattern::for_each_match(std::string_view text, const MatchSink& found) const {
  if (regex_) return regex_->for_each_match(text, found);
  if (literal_.empty()) return;
  for (size_t at = text.find(literal_); at != text.npos; at = text.find(literal_, at + literal_.size()))
    found(at, at + literal_.size());
}

}  // namespace gptq
