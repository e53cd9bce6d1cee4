#include "data/jinja/format.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <optional>

#include "data/jinja/collections.h"
#include "data/jinja/memory.h"
#include "data/jinja/operators.h"
#include "data/jinja/print.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

constexpr int64_t kMostPlaces = 1'000'000;

// What follows the % or the colon of a place.
struct Style {
  std::string fill = " ";
  char align = 0, sign = '-', grouping = 0, type = 0;
  bool alternate = false;
  int64_t width = 0, precision = -1;
};

// Reads a pattern from left to right.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  bool at_end() const { return at_ == text_.size(); }
  char peek() const { return at_end() ? 0 : text_[at_]; }
  char next() {
    if (at_end()) fail("a format ends in the middle");
    return text_[at_++];
  }
  bool skip(char c) {
    if (at_end() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  std::string_view until(std::string_view ends) {
    const size_t end = std::min(text_.find_first_of(ends, at_), text_.size());
    const std::string_view found = text_.substr(at_, end - at_);
    at_ = end;
    return found;
  }
  int64_t number(int64_t or_else) {
    if (!(peek() >= '0' && peek() <= '9')) return or_else;
    int64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + (next() - '0');
      if (value > kMostPlaces) fail("a format asks for more than ", kMostPlaces, " places");
    }
    return value;
  }
  std::string_view rest() const { return text_.substr(at_); }
  void remove(size_t bytes) { at_ += bytes; }

 private:
  std::string_view text_;
  size_t at_ = 0;
};

std::string repeated(std::string_view text, int64_t count) {
  std::string made;
  for (int64_t i = 0; i < count; ++i) made += text;
  return made;
}

// Fills up to the width; `align` is < > ^ or = (between sign and digits).
std::string aligned(const std::string& text, const Style& style, char align) {
  const int64_t missing = style.width - length(text);
  if (missing <= 0) return text;
  if (align == '<') return text + repeated(style.fill, missing);
  if (align == '^') return repeated(style.fill, missing / 2) + text + repeated(style.fill, missing - missing / 2);
  const size_t sign = align == '=' && !text.empty() && (text[0] == '-' || text[0] == '+' || text[0] == ' ') ? 1 : 0;
  return text.substr(0, sign) + repeated(style.fill, missing) + text.substr(sign);
}

void group(std::string& digits, char separator) {
  size_t end = digits.find_first_not_of("0123456789");
  if (end == digits.npos) end = digits.size();
  for (; end > 3; end -= 3) digits.insert(end - 3, 1, separator);
}

std::string with_sign(std::string digits, bool is_negative, const Style& style) {
  if (style.grouping != 0) group(digits, style.grouping);
  if (is_negative) return "-" + digits;
  return style.sign == '-' ? digits : style.sign + digits;
}

std::string whole_number(int64_t value, const Style& style) {
  std::array<char, 72> buffer{};
  const int base = style.type == 'x' || style.type == 'X' ? 16 : style.type == 'o' ? 8 : style.type == 'b' ? 2 : 10;
  const uint64_t size = value < 0 ? -static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), size, base);
  std::string digits(buffer.data(), end.ptr);
  if (style.type == 'X') digits = upper(digits);
  if (style.alternate && base != 10) digits = std::string("0") + style.type + digits;
  return with_sign(digits, value < 0, style);
}

std::string float_number(double value, const Style& style) {
  const bool percent = style.type == '%';
  const char type = percent ? 'f' : style.type;
  if (percent) value *= 100;
  const double size = std::fabs(value);
  const std::string pattern = std::string("%") + (style.alternate ? "#" : "") + ".*" + type;
  const int precision = static_cast<int>(style.precision < 0 ? 6 : style.precision);
  std::string digits(static_cast<size_t>(std::snprintf(nullptr, 0, pattern.c_str(), precision, size)) + 1, 0);
  std::snprintf(digits.data(), digits.size(), pattern.c_str(), precision, size);
  digits.pop_back();
  if (percent) digits += '%';
  return with_sign(digits, std::signbit(value), style);
}

double float_of(const Value& value) {
  if (const double* number = std::get_if<double>(&value)) return *number;
  if (const int64_t* whole = std::get_if<int64_t>(&value)) return static_cast<double>(*whole);
  if (const bool* truth = std::get_if<bool>(&value)) return *truth ? 1 : 0;
  fail("a format has a place for a number, and a ", type_of(value), " for it");
}

std::optional<int64_t> whole_of(const Value& value) {
  if (const int64_t* whole = std::get_if<int64_t>(&value)) return *whole;
  if (const bool* truth = std::get_if<bool>(&value)) return *truth ? 1 : 0;
  return std::nullopt;
}

bool is_float_type(char type) { return std::string_view("eEfFgG%").find(type) != std::string_view::npos; }
bool is_whole_type(char type) { return std::string_view("dixXob").find(type) != std::string_view::npos; }

std::string cut(std::string_view text, const Style& style) {
  return std::string(style.precision < 0 ? text : part(text, 0, style.precision));
}

// One place of a % pattern, behind the %(name).
std::string percent_place(Memory& memory, const Value& value, const Style& style, char align) {
  if (style.type == 's') return aligned(cut(to_text(memory, value).bytes, style), style, align);
  if (style.type == 'r') return aligned(cut(repr(memory, value), style), style, align);
  if (is_float_type(style.type) && style.type != '%')
    return aligned(float_number(float_of(value), style), style, align == '0' ? '=' : align);
  if (style.type == 'c' && text_in(value) != nullptr && length(text_in(value)->bytes) == 1)
    return aligned(std::string(text_in(value)->bytes), style, align);
  if (!is_whole_type(style.type) || style.type == 'b' || style.precision >= 0)
    refuse("the format \"%", style.type, "\" of a ", type_of(value));
  const double* number = std::get_if<double>(&value);
  if (number != nullptr && !(std::fabs(*number) < 9e18)) fail("a format has no integer for ", *number);
  const auto whole = number != nullptr && style.type != 'x' && style.type != 'X' && style.type != 'o'
                         ? static_cast<int64_t>(*number)
                         : whole_of(value);
  if (!whole) fail("a format has a place for a number, and a ", type_of(value), " for it");
  return aligned(whole_number(*whole, style), style, align == '0' ? '=' : align);
}

// [[fill]align][sign][#][0][width][,][.precision][type]
Style brace_style(std::string_view text) {
  Style style;
  Reader reader(text);
  size_t fill = 0;
  if (!text.empty()) next_character(text, fill);
  constexpr std::string_view kAligns = "<>=^";
  if (fill < text.size() && kAligns.find(text[fill]) != kAligns.npos) {
    style.fill = text.substr(0, fill);
    style.align = text[fill];
    reader.remove(fill + 1);
  } else if (!text.empty() && kAligns.find(text[0]) != kAligns.npos) {
    style.align = reader.next();
  }
  if (reader.peek() == '+' || reader.peek() == '-' || reader.peek() == ' ') style.sign = reader.next();
  style.alternate = reader.skip('#');
  if (reader.skip('0') && style.align == 0) style.fill = "0", style.align = '=';
  style.width = reader.number(0);
  if (reader.peek() == ',' || reader.peek() == '_') style.grouping = reader.next();
  if (reader.skip('.')) {
    style.precision = reader.number(-1);
    if (style.precision < 0) fail("a format lacks its precision");
  }
  if (!reader.at_end()) style.type = reader.next();
  if (!reader.at_end()) fail("the format \"", shown(text), "\" is not one of Python's");
  return style;
}

std::string brace_place(Memory& memory, const Value& value, Style style) {
  const bool is_number = whole_of(value).has_value() || std::holds_alternative<double>(value);
  if (const Text* text = text_in(value)) {
    if ((style.type != 0 && style.type != 's') || style.align == '=')
      fail("a format has a str where it has no place for one");
    return aligned(cut(text->bytes, style), style, style.align == 0 ? '<' : style.align);
  }
  if (!is_number || (std::holds_alternative<bool>(value) && style.type == 0)) {
    if (style.width != 0 || style.type != 0 || style.precision >= 0) refuse("a format of a ", type_of(value));
    return std::string(to_text(memory, value).bytes);
  }
  const char align = style.align == 0 ? '>' : style.align;
  if (is_float_type(style.type)) return aligned(float_number(float_of(value), style), style, align);
  const auto whole = whole_of(value);
  if (whole && (style.type == 0 || is_whole_type(style.type)) && style.precision < 0)
    return aligned(whole_number(*whole, style), style, align);
  if (style.type != 0 || style.precision >= 0) refuse("this format of a ", type_of(value));
  const double number = std::get<double>(value);
  return aligned(with_sign(to_decimal(std::fabs(number)), std::signbit(number), style), style, align);
}

// The value of {name}, {0}, {}, {name.attribute} or {name[key]}.
Value field_of(Memory& memory, std::string_view field, const Arguments& arguments, size_t& automatic) {
  Reader reader(field);
  const std::string_view first = reader.until(".[");
  Value value = Missing{first};
  if (first.empty() || is_all(first, is_decimal)) {
    size_t index = first.empty() ? automatic++ : 0;
    if (!first.empty()) std::from_chars(first.data(), first.data() + first.size(), index);
    if (index >= arguments.positional.size()) fail("a format has more places than there are values");
    value = arguments.positional[index];
  } else {
    const auto found = std::find_if(arguments.named.begin(), arguments.named.end(),
                                    [&](const auto& pair) { return pair.first == first; });
    if (found == arguments.named.end()) fail("a format has no value for \"", shown(first), "\"");
    value = found->second;
  }
  while (!reader.at_end()) {
    if (reader.skip('.')) {
      value = attribute(memory, value, reader.until(".["));
    } else if (reader.skip('[')) {
      const std::string_view key = reader.until("]");
      if (!reader.skip(']')) fail("a format lacks a ]");
      int64_t index = 0;
      std::from_chars(key.data(), key.data() + key.size(), index);
      value = subscript(memory, value, is_all(key, is_decimal) ? Value(index) : Value(Text{key}));
    } else {
      fail("a format has something behind a ]");
    }
  }
  return value;
}

}  // namespace

std::string format_percent(Memory& memory, const Text& pattern, const Value& values) {
  if (pattern.markup) refuse("% of a text that is marked as safe");
  const List* list = list_in(values);
  const bool is_tuple = list != nullptr && list->shape == List::Shape::kTuple;
  const std::span<const Value> items =
      is_tuple ? std::span<const Value>(list->items) : std::span<const Value>(&values, 1);
  size_t used = 0;
  std::string made;
  for (Reader reader(pattern.bytes); !reader.at_end();) {
    made += reader.until("%");
    if (!reader.skip('%')) break;
    if (reader.skip('%')) {
      made += '%';
      continue;
    }
    Value value = Missing{};
    const bool is_named = reader.skip('(');
    if (is_named) {
      const std::string_view name = reader.until(")");
      reader.skip(')');
      const Dict* dict = dict_in(values);
      const Value* found = dict == nullptr ? nullptr : find(memory, *dict, Text{name});
      if (found == nullptr) fail("a format has no value for \"", shown(name), "\"");
      value = *found;
      used = items.size();
    }
    Style style;
    char align = '>';
    for (;; reader.next()) {
      if (reader.peek() == '-')
        align = '<';
      else if (reader.peek() == '0')
        align = align == '<' ? '<' : '0', style.fill = align == '<' ? " " : "0";
      else if (reader.peek() == '+')
        style.sign = '+';
      else if (reader.peek() == ' ')
        style.sign = style.sign == '+' ? '+' : ' ';
      else if (reader.peek() == '#')
        style.alternate = true;
      else
        break;
    }
    style.width = reader.number(0);
    if (reader.skip('.')) style.precision = reader.number(0);
    style.type = reader.next();
    if (!is_named) {
      if (used == items.size()) fail("a format has more places than there are values");
      value = items[used++];
    }
    if (align == '<') style.fill = " ";
    made += percent_place(memory, value, style, align);
    memory.read(0), memory.require(made.size());
  }
  const bool has_keys =
      is_missing(values) || dict_in(values) != nullptr || (list != nullptr && list->shape <= List::Shape::kRange);
  if (used < items.size() && (is_tuple || !has_keys)) fail("a format has fewer places than there are values");
  return made;
}

std::string format_braces(Memory& memory, std::string_view pattern, const Arguments& arguments) {
  size_t automatic = 0;
  std::string made;
  for (Reader reader(pattern); !reader.at_end();) {
    made += reader.until("{}");
    if (reader.at_end()) break;
    const char brace = reader.next();
    if (reader.skip(brace)) {
      made += brace;
      continue;
    }
    if (brace == '}') fail("a format has a single }");
    const std::string_view field = reader.until("!:{}");
    const char conversion = reader.skip('!') ? reader.next() : '\0';
    const std::string_view spec = reader.skip(':') ? reader.until("{}") : std::string_view();
    if (reader.peek() == '{') refuse("a format within a format");
    if (!reader.skip('}')) fail("a format lacks a }");
    Value value = field_of(memory, field, arguments, automatic);
    if (conversion == 'r') value = memory.text(repr(memory, value));
    if (conversion == 's') value = to_text(memory, value);
    if (conversion != 0 && conversion != 'r' && conversion != 's') refuse("the conversion !", conversion);
    made += brace_place(memory, value, brace_style(spec));
    memory.read(0), memory.require(made.size());
  }
  return made;
}

}  // namespace gptq::jinja
