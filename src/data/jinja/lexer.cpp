#include "data/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "data/jinja/literals.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

using Kind = Token::Kind;

// With \n for all ends of lines, and without the last one.
std::string with_unix_lines(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    text += source[i] == '\r' ? '\n' : source[i];
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : text_(with_unix_lines(source)) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) read_data();
    add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void refuse(const std::string& sentence) const { refuse_line(line_, sentence); }

  std::string_view rest() const { return std::string_view(text_).substr(at_); }
  bool sees(std::string_view what) const { return rest().starts_with(what); }

  void add(Kind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }

  void move(size_t bytes) {
    line_ += static_cast<int>(
        std::count(text_.begin() + static_cast<int64_t>(at_), text_.begin() + static_cast<int64_t>(at_ + bytes), '\n'));
    if (bytes > 0) starts_line_ = text_[at_ + bytes - 1] == '\n';
    at_ += bytes;
  }

  void move_over_spaces() {
    size_t end = at_;
    for (size_t next = at_; next < text_.size() && is_space(next_character(text_, next));) end = next;
    move(end - at_);
  }

  // The byte at which `what` is found, or the end.
  size_t find(std::string_view what) const { return std::min(text_.find(what, at_), text_.size()); }

  // The text up to the next tag, and what opens it.
  void read_data() {
    size_t end = at_;
    while (end < text_.size() && !(text_[end] == '{' && end + 1 < text_.size() &&
                                   (text_[end + 1] == '{' || text_[end + 1] == '%' || text_[end + 1] == '#')))
      ++end;
    if (end == text_.size()) {
      add(Kind::kData, std::string(rest()));
      return move(end - at_);
    }
    const char kind = text_[end + 1], sign = end + 2 < text_.size() ? text_[end + 2] : '\0';
    add_data(end, sign, kind != '{');
    const size_t opening = sign == '-' || sign == '+' ? 3 : 2;
    move(opening);
    if (kind == '#') return skip_comment();
    if (kind == '%' && starts_raw()) return read_raw();
    add(kind == '{' ? Kind::kPrintBegin : Kind::kBlockBegin, "");
    read_tag(kind == '{');
  }

  // The data up to `end`, without the white space that a tag with this sign takes away.
  void add_data(size_t end, char sign, bool is_block) {
    std::string_view data = std::string_view(text_).substr(at_, end - at_);
    if (sign == '-') {
      data = strip(data, Side::kRight);
    } else if (sign != '+' && is_block) {
      const size_t start = data.rfind('\n') + 1;  // 0 if there is none
      if ((start > 0 || starts_line_) && strip(data.substr(start), Side::kBoth).empty()) data = data.substr(0, start);
    }
    if (!data.empty()) add(Kind::kData, std::string(data));
    move(end - at_);
  }

  // Moves past the end of a block or comment, with the white space that its sign takes away.
  bool skip_end(std::string_view end, bool trims_line) {
    if (sees("-" + std::string(end))) {
      move(1 + end.size());
      move_over_spaces();
      return true;
    }
    const bool keeps_line = trims_line && sees("+" + std::string(end));
    if (!keeps_line && !sees(end)) return false;
    move(end.size() + (keeps_line ? 1 : 0));
    if (trims_line && !keeps_line && sees("\n")) move(1);
    return true;
  }

  void skip_comment() {
    const size_t close = find("#}");
    if (close == text_.size()) refuse("a comment {# has no end");
    const bool has_sign = close > at_ && (text_[close - 1] == '-' || text_[close - 1] == '+');
    move(close - at_ - (has_sign ? 1 : 0));
    skip_end("#}", true);
  }

  // Whether the tag is {% raw %}; moves past it if so.
  bool starts_raw() {
    size_t next = at_;
    const auto skip_spaces = [&] {
      for (size_t end = next; next < text_.size() && is_space(next_character(text_, end));) next = end;
    };
    skip_spaces();
    if (text_.compare(next, 3, "raw") != 0) return false;
    next += 3;
    skip_spaces();
    const bool strips = text_.compare(next, 3, "-%}") == 0;
    if (!strips && text_.compare(next, 2, "%}") != 0) return false;
    move(next + (strips ? 3 : 2) - at_);
    if (strips) move_over_spaces();
    return true;
  }

  void read_raw() {
    for (size_t open = find("{%"); open < text_.size(); open = std::min(text_.find("{%", open + 2), text_.size())) {
      size_t next = open + 2;
      const char sign = next < text_.size() && (text_[next] == '-' || text_[next] == '+') ? text_[next] : '\0';
      if (sign != 0) ++next;
      for (size_t end = next; next < text_.size() && is_space(next_character(text_, end));) next = end;
      if (text_.compare(next, 6, "endraw") != 0) continue;
      add_data(open, sign, true);
      move(next + 6 - at_);
      move_over_spaces();
      if (!skip_end("%}", true)) refuse("the tag endraw has no end");
      return;
    }
    refuse("the block raw has no end");
  }

  void read_tag(bool is_print) {
    const int first = line_;
    std::string open;  // brackets
    while (true) {
      if (open.empty() && skip_end(is_print ? "}}" : "%}", !is_print)) {
        add(is_print ? Kind::kPrintEnd : Kind::kBlockEnd, "");
        return;
      }
      if (at_ == text_.size()) refuse_line(first, std::string("a tag ") + (is_print ? "{{" : "{%") + " has no end");
      size_t after = at_;
      const char32_t c = next_character(text_, after);
      if (is_space(c)) {
        move(after - at_);
      } else if (c >= '0' && c <= '9') {
        read_number();
      } else if (c == '"' || c == '\'') {
        read_text(static_cast<char>(c));
      } else if (is_word(c)) {
        read_name();
      } else {
        read_sign(open);
      }
    }
  }

  void read_name() {
    size_t end = at_;
    for (size_t next = at_; next < text_.size() && is_word(next_character(text_, next));) end = next;
    const std::string name = text_.substr(at_, end - at_);
    move(end - at_);
    add(Kind::kName, name);
  }

  void read_sign(std::string& open) {
    constexpr std::array<std::string_view, 27> kSigns = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                         "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                         ">",  "<",  "=",  ".",  ":",  "|",  ",", ";", "!"};
    const auto* sign = std::find_if(kSigns.begin(), kSigns.end(), [&](std::string_view s) { return sees(s); });
    if (sign == kSigns.end() || *sign == "!") refuse("unexpected character \"" + shown(rest().substr(0, 1)) + "\"");
    const char c = (*sign)[0];
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) refuse(std::string("unexpected \"") + c + "\"");
      open.pop_back();
    }
    add(Kind::kSign, std::string(*sign));
    move(sign->size());
  }

  void read_number() {
    const NumberLiteral number = read_number_literal(text_, at_);
    if (!number.trouble.empty()) refuse(number.trouble);
    add(number.is_float ? Kind::kFloat : Kind::kInteger, number.digits);
    move(number.end - at_);
  }

  void read_text(char quote) {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
    if (end >= text_.size()) refuse("a string has no end");
    std::string made;
    const std::string trouble = unescape(std::string_view(text_).substr(at_ + 1, end - at_ - 1), made);
    if (!trouble.empty()) refuse(trouble);
    add(Kind::kText, made);
    move(end + 1 - at_);
  }

  std::string text_;
  size_t at_ = 0;
  int line_ = 1;
  bool starts_line_ = true;  // nothing is before at_ in its line
  std::vector<Token> tokens_;
};

}  // namespace

void refuse_line(int line, const std::string& sentence) { throw UnsupportedError(cat("line ", line, ": ", sentence)); }

std::vector<Token> tokens_of(std::string_view source) { return Lexer(source).run(); }

std::string name_of(const Token& token) {
  switch (token.kind) {
    case Kind::kPrintEnd:
      return "\"}}\"";
    case Kind::kBlockEnd:
      return "\"%}\"";
    case Kind::kText:
      return "the string \"" + shown(token.text) + "\"";
    case Kind::kEnd:
      return "the end of the template";
    default:
      return "\"" + shown(token.text) + "\"";
  }
}

}  // namespace gptq::jinja
