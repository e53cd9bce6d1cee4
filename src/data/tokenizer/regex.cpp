// Translates Oniguruma patterns to PCRE2 and runs them, compiled to machine code where PCRE2 can. PCRE2 does not say
// what a match has cost. So a match is first tried within narrow bounds, which nearly all keep to; beyond them it is
// repeated with a callout before each item of the pattern, which counts steps against the text's budget.
#include "data/tokenizer/regex.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/message.h"
#include "data/tokenizer/unicode.h"

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

// A real pattern has at most some thousand bytes.
constexpr size_t kLongestPattern = 32 << 10;
constexpr int kDeepestClass = 100;

// A brief match sees this many bytes from its start and backtracks so often, which takes at most so many steps.
constexpr size_t kBriefBytes = 128;
constexpr uint32_t kBriefLimit = 256;
constexpr uint64_t kBriefSteps = 20000;

pcre2_code* compile(std::string_view pattern, uint32_t more_options, int& error, size_t& offset) {
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  // Ruby's ^ and $ match at every line.
  constexpr uint32_t kOptions = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), kOptions | more_options, &error,
                       &offset, context.get());
}

bool compiles(std::string_view pattern) {
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = compile(pattern, 0, error, offset);
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
        if (at("(*")) throw unsupported("has (*, which is not supported");
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
  UnsupportedError unsupported(std::string_view what) const {
    return UnsupportedError(cat("the regular expression ", excerpt(pattern_), " ", what));
  }

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
    if (at_end()) throw unsupported("ends in a backslash");
    char c = pattern_[position_];
    if ((c == 'p' || c == 'P') && position_ + 1 < pattern_.size() && pattern_[position_ + 1] == '{') return property();
    if (c == 'C') throw unsupported("has \\C, which is not supported as it matches parts of characters");
    if (c == 'u') {
      const std::string_view code = pattern_.substr(position_ + 1, 4);
      if (code.size() < 4 || code.find_first_not_of("0123456789abcdefABCDEF") != code.npos)
        throw unsupported("has \\u without four hexadecimal digits");
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
    if (close == pattern_.npos) throw unsupported("has an unfinished \\p{");
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
  std::string character_class(int depth = 1) {
    if (depth > kDeepestClass) throw unsupported(cat("has classes nested deeper than ", kDeepestClass, " levels"));
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
      if (at_end()) throw unsupported("has an unfinished character class");
      char c = pattern_[position_];
      if (c == ']' && !first) break;
      if (at("[:")) {
        size_t close = pattern_.find(":]", position_);
        if (close == pattern_.npos) throw unsupported("has an unfinished [:");
        std::string_view bracket = pattern_.substr(position_, close + 2 - position_);
        members += bracket == "[:punct:]" ? std::string_view(R"(\p{P}\p{S})") : bracket;
        position_ = close + 2;
      } else if (c == '[') {
        nested.push_back(character_class(depth + 1));
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

std::string translate_oniguruma(std::string_view pattern) {
  if (pattern.size() > kLongestPattern)
    throw UnsupportedError(cat("the regular expression ", excerpt(pattern), " has ", pattern.size(),
                               " bytes where at most ", kLongestPattern, " were expected"));
  if (invalid_utf8_offset(pattern) >= 0) throw UnsupportedError("a regular expression is not valid UTF-8");
  return Translator(pattern).translate();
}

Regex::Regex(std::string_view pattern) : pattern_(pattern) {
  const std::string translated = translate_oniguruma(pattern);
  int error = 0;
  size_t offset = 0;
  code_.reset(compile(translated, 0, error, offset));
  if (code_) counted_.reset(compile(translated, PCRE2_AUTO_CALLOUT, error, offset));
  if (!counted_)
    throw UnsupportedError(
        cat("the regular expression ", excerpt(pattern_), " is not supported (", error_text(error), ")"));
  // Where this fails, PCRE2 interprets the pattern.
  is_compiled_ = pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD) == 0 &&
                 pcre2_jit_compile(counted_.get(), PCRE2_JIT_COMPLETE) == 0;
  brief_.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(brief_.get(), kBriefLimit);
  looks_at_start_ = translated.find("\\G") != translated.npos;
}

// Finds the matches of a text one by one.
class Regex::Matcher {
 public:
  Matcher(const Regex& regex, std::string_view text, Budget& budget)
      : regex_(regex),
        text_(text),
        budget_(budget),
        data_(pcre2_match_data_create_from_pattern(regex.code_.get(), nullptr), &pcre2_match_data_free) {}

  // The first match that starts at `start` or later; false if there is none.
  bool next(size_t start) {
    while (!regex_.looks_at_start_ && !budget_.samples()) {
      const size_t end = window_end(start);
      const bool to_end = end == text_.size();
      const int result = run(regex_.code_.get(), end, start, to_end ? 0 : PCRE2_PARTIAL_HARD, regex_.brief_.get());
      if (result > 0 && bounds()[0] <= bounds()[1] && (to_end || bounds()[1] < end)) return true;
      if (result != PCRE2_ERROR_NOMATCH) return measured(start);
      if (to_end) return false;
      start = end;
    }
    return measured(start);
  }
  const PCRE2_SIZE* bounds() const { return pcre2_get_ovector_pointer(data_.get()); }

 private:
  // The end of what a brief match sees, between two characters.
  size_t window_end(size_t start) const {
    if (text_.size() - start <= kBriefBytes) return text_.size();
    size_t end = start + kBriefBytes;
    while (end > start + 1 && (static_cast<uint8_t>(text_[end]) & 0xc0) == 0x80) --end;
    return end;
  }

  int run(const pcre2_code* code, size_t end, size_t start, uint32_t options, pcre2_match_context* context) {
    const auto match = regex_.is_compiled_ ? &pcre2_jit_match : &pcre2_match;
    return match(code, reinterpret_cast<PCRE2_SPTR>(text_.data()), end, start, options | PCRE2_NO_UTF_CHECK,
                 data_.get(), context);
  }

  bool measured(size_t start) {
    if (!context_) {
      context_.reset(pcre2_match_context_create(nullptr));
      pcre2_set_match_limit(context_.get(), ~uint32_t{0});
      pcre2_set_heap_limit(context_.get(), kMemory >> 10);
      pcre2_set_callout(context_.get(), &count, this);
    }
    int result = run_counted(start);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT && !stack_) {
      constexpr size_t kStackStart = 32 << 10;
      stack_.reset(pcre2_jit_stack_create(kStackStart, kMemory, nullptr));
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
      result = run_counted(start);
    }
    if (result == PCRE2_ERROR_CALLOUT) budget_.refuse_steps(name());
    // A match that could have been brief stands for those that were not measured.
    const bool is_sample = furthest_ < start + kBriefBytes && steps_ <= kBriefSteps;
    const uint64_t steps = is_sample ? steps_ * Budget::kSampled : steps_;
    if (steps > budget_.steps_left()) budget_.refuse_steps(name());
    budget_.spend(steps, "a regular expression");
    if (result == PCRE2_ERROR_NOMATCH) return false;
    if (result > 0 && bounds()[0] <= bounds()[1] && bounds()[0] >= start) return true;
    throw InputError(cat(name(), " fails at byte ", start, " of a text of ", text_.size(), " bytes (",
                         result > 0 ? "a match that ends before it starts" : error_text(result), ")"));
  }

  int run_counted(size_t start) {
    steps_ = 0, last_ = furthest_ = start;
    return run(regex_.counted_.get(), text_.size(), start, 0, context_.get());
  }

  // Called before each item that is matched.
  static int count(pcre2_callout_block* block, void* matcher) {
    constexpr uint64_t kStepsOfItem = 16;
    Matcher& self = *static_cast<Matcher*>(matcher);
    const size_t at = block->current_position;
    self.steps_ += kStepsOfItem + (at > self.last_ ? at - self.last_ : self.last_ - at);
    self.last_ = at;
    self.furthest_ = std::max(self.furthest_, at);
    return self.steps_ > self.budget_.steps_left() ? PCRE2_ERROR_CALLOUT : 0;
  }

  std::string name() const { return cat("the regular expression ", excerpt(regex_.pattern_)); }

  static constexpr size_t kMemory = 96 << 20;  // for what a match has to keep

  const Regex& regex_;
  const std::string_view text_;
  Budget& budget_;
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data_;
  std::unique_ptr<pcre2_match_context, Release> context_;
  std::unique_ptr<pcre2_jit_stack, decltype(&pcre2_jit_stack_free)> stack_{nullptr, &pcre2_jit_stack_free};
  uint64_t steps_ = 0;
  size_t last_ = 0, furthest_ = 0;
};

void Regex::for_each_match(std::string_view text, Budget& budget, const MatchSink& found) const {
  Matcher matcher(*this, text, budget);
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t last_end = kNone;
  for (size_t start = 0; start <= text.size() && matcher.next(start);) {
    const size_t from = matcher.bounds()[0], to = matcher.bounds()[1];
    if (from == to && to == last_end) {
      do ++start;
      while (start < text.size() && (static_cast<uint8_t>(text[start]) & 0xc0) == 0x80);
      continue;
    }
    start = last_end = to;
    found(from, to);
  }
}

void Regex::for_each_match(std::string_view text, const MatchSink& found) const {
  Budget budget(text.size());
  for_each_match(text, budget, found);
}

TextPattern::TextPattern(const nlohmann::json& description) {
  if (description.contains("String")) {
    literal_ = description.at("String").get<std::string>();
    if (literal_.empty()) throw UnsupportedError("an empty \"String\" as the pattern to find is not supported");
  } else {
    regex_ = std::make_unique<Regex>(description.at("Regex").get<std::string>());
  }
}

void TextPattern::for_each_match(std::string_view text, Budget& budget, const MatchSink& found) const {
  if (regex_) return regex_->for_each_match(text, budget, found);
  // Linear even where text and literal nearly match everywhere, as find() is not.
  for (size_t at = 0; at < text.size();) {
    const void* match = memmem(text.data() + at, text.size() - at, literal_.data(), literal_.size());
    if (match == nullptr) return;
    const auto start = static_cast<size_t>(static_cast<const char*>(match) - text.data());
    at = start + literal_.size();
    found(start, at);
  }
}

}  // namespace gptq
