// Filters of numbers and texts, and those that make a text.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <optional>

#include "data/jinja/collections.h"
#include "data/jinja/filters.h"
#include "data/jinja/format.h"
#include "data/jinja/memory.h"
#include "data/jinja/operators.h"
#include "data/jinja/print.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

template <std::string (*change)(std::string_view)>
Value changed(Memory& memory, const Value& value, Arguments&) {
  const Text text = to_text(memory, value);
  memory.require(3 * text.bytes.size());
  memory.read(8 * text.bytes.size());
  return memory.text(change(text.bytes), text.markup);
}

// Words start behind white space, hyphens and opening brackets; unlike for str.title().
std::string titled(std::string_view text) {
  std::string made;
  bool starts = true;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = next_character(text, at);
    const bool separates = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    if (separates) {
      made += text.substr(start, at - start);
      starts = true;
      continue;
    }
    size_t end = at;
    if (starts) {
      made += upper(text.substr(start, at - start));
    } else {
      for (size_t next = at; next < text.size(); end = next) {
        const char32_t other = next_character(text, next);
        if (is_space(other) || other == '-' || other == '(' || other == '{' || other == '[' || other == '<') break;
      }
      made += lower(text.substr(start, end - start));
    }
    at = end;
    starts = false;
  }
  return made;
}

Value trim(Memory& memory, const Value& value, Arguments& arguments) {
  const Text text = to_text(memory, value);
  const Value characters = arguments.take("chars").value_or(None{});
  memory.read(text.bytes.size());
  if (is_none(characters)) return Text{strip(text.bytes, Side::kBoth), text.markup};
  const Text* given = text_in(characters);
  if (given == nullptr) fail("trim() has a ", type_of(characters), " where a str was expected");
  memory.step(1 + text.bytes.size() / 64 * (1 + given->bytes.size() / 16));
  return Text{strip(text.bytes, Side::kBoth, given->bytes), text.markup};
}

Value string(Memory& memory, const Value& value, Arguments&) { return to_text(memory, value); }

Value safe(Memory& memory, const Value& value, Arguments&) { return Text{to_text(memory, value).bytes, true}; }

Value escaped(Memory& memory, const Value& value, Arguments&) {
  const Text text = to_text(memory, value);
  if (text.markup) return text;
  memory.require(5 * text.bytes.size());
  return memory.text(escape_html(text.bytes), true);
}

Value replaced(Memory& memory, const Value& value, Arguments& arguments) {
  const std::string_view text = to_text(memory, value).bytes;
  const std::string_view from = to_text(memory, arguments.required("old")).bytes;
  const std::string_view to = to_text(memory, arguments.required("new")).bytes;
  const Value count = arguments.take("count").value_or(None{});
  if (!is_none(count) && !std::holds_alternative<int64_t>(count)) fail("replace() has a count that is no int");
  const int64_t most = is_none(count) ? -1 : std::get<int64_t>(count);
  memory.read(4 * text.size());
  memory.require(replaced_size(text, from, to, most));
  return memory.text(replace(text, from, to, most));
}

const Text& required_text(const Value& value, const Arguments& arguments) {
  const Text* text = text_in(value);
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  if (text == nullptr) fail(arguments.function(), "() of a ", type_of(value), " where a str was expected");
  return *text;
}

Value indent(Memory& memory, const Value& value, Arguments& arguments) {
  const Text& text = required_text(value, arguments);
  const Value width = arguments.take("width").value_or(int64_t{4});
  const bool first = arguments.flag("first", false), blank = arguments.flag("blank", false);
  std::string indention;
  if (const Text* given = text_in(width)) {
    indention = given->bytes;
  } else if (const int64_t* count = std::get_if<int64_t>(&width)) {
    memory.require(static_cast<size_t>(std::max<int64_t>(*count, 0)));
    indention.assign(static_cast<size_t>(std::max<int64_t>(*count, 0)), ' ');
  } else {
    fail("indent() has a width that is a ", type_of(width));
  }
  memory.read(4 * text.bytes.size());
  memory.require(4 * text.bytes.size());
  const std::string whole = std::string(text.bytes) + "\n";
  std::string made = first ? indention : "";
  bool is_first = true;
  for (const std::string_view line : split_lines(whole)) {
    memory.require(made.size() + indention.size() + line.size() + 1);
    if (!is_first) made += '\n';
    if (!is_first && (blank || !line.empty())) made += indention;
    made += line;
    is_first = false;
  }
  return memory.text(std::move(made), text.markup);
}

Value truncate(Memory& memory, const Value& value, Arguments& arguments) {
  const Text& text = required_text(value, arguments);
  const int64_t most = arguments.integer("length", 255);
  const bool kill_words = arguments.flag("killwords", false);
  const std::string_view end = arguments.text("end", "...");
  const Value leeway = arguments.take("leeway").value_or(None{});
  const int64_t allowed = is_none(leeway)                           ? 5
                          : std::holds_alternative<int64_t>(leeway) ? std::get<int64_t>(leeway)
                                                                    : -1;
  if (most < length(end) || allowed < 0) fail("truncate() has a length or a leeway that is too small");
  memory.read(2 * text.bytes.size());
  if (length(text.bytes) - allowed <= most) return text;
  std::string_view kept = part(text.bytes, 0, most - length(end));
  if (const size_t space = kept.rfind(' '); !kill_words && space != kept.npos) kept = kept.substr(0, space);
  return memory.text(std::string(kept) + std::string(end), text.markup);
}

Value center(Memory& memory, const Value& value, Arguments& arguments) {
  Arguments width("center");
  width.positional = {arguments.integer("width", 80)};
  const Value method = attribute(memory, to_text(memory, value), "center");
  return std::get<Callable*>(method)->call(width);
}

Value word_count(Memory& memory, const Value& value, Arguments&) {
  const std::string_view text = to_text(memory, value).bytes;
  memory.read(8 * text.size());
  int64_t count = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    const bool in_next = is_letter(c) || is_numeric(c) || c == '_';
    count += in_next && !in_word ? 1 : 0;
    in_word = in_next;
  }
  return count;
}

Value format(Memory& memory, const Value& value, Arguments& arguments) {
  const Text pattern = to_text(memory, value);
  Value values = memory.list(arguments.take_rest(), List::Shape::kTuple);
  if (!arguments.named.empty()) {
    if (truth(values)) fail("format() has both positional and named arguments");
    Dict* named = memory.dict();
    for (const auto& [name, given] : arguments.named) insert(memory, *named, Text{name}, given);
    arguments.named.clear();
    values = named;
  }
  return memory.text(format_percent(memory, pattern, values));
}

// As Python's float() reads a text.
std::optional<double> read_float(std::string_view text) {
  std::string digits(strip(text, Side::kBoth));
  for (size_t at = digits.find('_', 1); at != digits.npos && at + 1 < digits.size(); at = digits.find('_', at)) {
    if (!std::isdigit(static_cast<unsigned char>(digits[at - 1])) ||
        !std::isdigit(static_cast<unsigned char>(digits[at + 1])))
      return std::nullopt;
    digits.erase(at, 1);
  }
  const std::string words = lower(digits);
  const size_t sign = words.starts_with('-') || words.starts_with('+') ? 1 : 0;
  const std::string_view rest = std::string_view(words).substr(sign);
  const bool is_word = rest == "inf" || rest == "infinity" || rest == "nan";
  if (!is_word && rest.find_first_not_of("0123456789.e+-") != rest.npos) return std::nullopt;
  char* end = nullptr;
  const double number = std::strtod(words.c_str(), &end);
  if (words.empty() || end != words.c_str() + words.size()) return std::nullopt;
  return number;
}

// As Python's int() reads a text.
std::optional<int64_t> read_integer(std::string_view text, int64_t base) {
  std::string digits = lower(strip(text, Side::kBoth));
  const bool is_negative = digits.starts_with('-');
  if (is_negative || digits.starts_with('+')) digits.erase(0, 1);
  if (base == 16 && digits.starts_with("0x")) digits.erase(0, 2);
  if (base == 8 && digits.starts_with("0o")) digits.erase(0, 2);
  if (base == 2 && digits.starts_with("0b")) digits.erase(0, 2);
  if (digits.empty() || digits.front() == '_' || digits.back() == '_' || digits.find("__") != digits.npos)
    return std::nullopt;
  std::erase(digits, '_');
  if (is_negative) digits.insert(0, 1, '-');
  int64_t number = 0;
  const char* end = digits.data() + digits.size();
  const auto read = std::from_chars(digits.data(), end, number, static_cast<int>(base));
  if (read.ec == std::errc::result_out_of_range && read.ptr == end)
    fail("an integer is larger than the 64 bits that are supported");
  if (read.ec != std::errc() || read.ptr != end || digits.starts_with("--")) return std::nullopt;
  return number;
}

std::optional<int64_t> whole_part(double number) {
  if (std::isnan(number) || std::isinf(number)) return std::nullopt;
  if (std::fabs(number) >= 9.2e18) fail("an integer is larger than the 64 bits that are supported");
  return static_cast<int64_t>(number);
}

Value integer(Memory& memory, const Value& value, Arguments& arguments) {
  const Value or_else = arguments.take("default").value_or(int64_t{0});
  const int64_t base = arguments.integer("base", 10);
  if (base != 10 && base != 16 && base != 8 && base != 2) refuse("the base ", base, " of int()");
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  if (std::holds_alternative<int64_t>(value)) return value;
  if (const bool* truth = std::get_if<bool>(&value)) return int64_t{*truth ? 1 : 0};
  std::optional<double> number;
  if (const double* given = std::get_if<double>(&value)) number = *given;
  if (const Text* text = text_in(value)) {
    memory.read(8 * text->bytes.size());
    if (const auto read = read_integer(text->bytes, base)) return *read;
    number = read_float(text->bytes);
  }
  const auto whole = number ? whole_part(*number) : std::nullopt;
  return whole ? Value(*whole) : or_else;
}

Value floating(Memory& memory, const Value& value, Arguments& arguments) {
  const Value or_else = arguments.take("default").value_or(0.0);
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  if (const int64_t* whole = std::get_if<int64_t>(&value)) return static_cast<double>(*whole);
  if (const bool* truth = std::get_if<bool>(&value)) return *truth ? 1.0 : 0.0;
  if (std::holds_alternative<double>(value)) return value;
  const Text* text = text_in(value);
  if (text == nullptr) return or_else;
  memory.read(8 * text->bytes.size());
  const auto number = read_float(text->bytes);
  return number ? Value(*number) : or_else;
}

Value absolute(Memory&, const Value& value, Arguments&) {
  if (const double* number = std::get_if<double>(&value)) return std::fabs(*number);
  if (const int64_t* whole = std::get_if<int64_t>(&value)) return *whole < 0 ? negative(value) : value;
  if (const bool* truth = std::get_if<bool>(&value)) return int64_t{*truth ? 1 : 0};
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  fail("abs() of a ", type_of(value));
}

Value rounded(Memory&, const Value& value, Arguments& arguments) {
  const int64_t precision = arguments.integer("precision", 0);
  const std::string_view method = arguments.text("method", "common");
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  const bool* truth = std::get_if<bool>(&value);
  const Value counted = truth != nullptr ? Value(int64_t{*truth ? 1 : 0}) : value;
  const int64_t* whole = std::get_if<int64_t>(&counted);
  const double* number = std::get_if<double>(&counted);
  if (whole == nullptr && number == nullptr) fail("round() of a ", type_of(value));
  if (precision < 0 || precision > 100) refuse("a precision of ", precision, " in round()");
  if (method == "common") {
    if (whole != nullptr) return counted;
    std::array<char, 512> digits{};
    std::snprintf(digits.data(), digits.size(), "%.*f", static_cast<int>(precision), *number);
    return std::strtod(digits.data(), nullptr);
  }
  if (method != "ceil" && method != "floor") fail("round() has none of the methods common, ceil and floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = (whole != nullptr ? static_cast<double>(*whole) : *number) * scale;
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale;
}

std::string url_quoted(std::string_view text, bool in_query) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::string made;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x80 &&
        (std::isalnum(byte) != 0 || c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !in_query))) {
      made += c;
    } else if (c == ' ' && in_query) {
      made += '+';
    } else {
      made += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return made;
}

Value url_encode(Memory& memory, const Value& value, Arguments&) {
  const Dict* dict = dict_in(value);
  if (dict == nullptr && list_in(value) != nullptr) refuse("urlencode() of a list");
  const auto part = [&](const Value& one, bool in_query) {
    const std::string_view text = to_text(memory, one).bytes;
    memory.require(3 * text.size());
    return url_quoted(text, in_query);
  };
  if (dict == nullptr) return memory.text(part(value, false));
  std::string made;
  for (const auto& [key, one] : dict->entries) {
    made += (made.empty() ? "" : "&") + part(key, true) + "=" + part(one, true);
    memory.require(made.size());
  }
  return memory.text(std::move(made));
}

Value json(Memory& memory, const Value& value, Arguments& arguments) {
  JsonStyle style;
  style.ascii = arguments.flag("ensure_ascii", false);
  const Value indent = arguments.take("indent").value_or(None{});
  const Value separators = arguments.take("separators").value_or(None{});
  style.sorted = arguments.flag("sort_keys", false);
  if (const Text* text = text_in(indent)) {
    style.indent = text->bytes;
  } else if (const int64_t* count = std::get_if<int64_t>(&indent)) {
    memory.require(static_cast<size_t>(std::max<int64_t>(*count, 0)));
    style.indent = std::string(static_cast<size_t>(std::max<int64_t>(*count, 0)), ' ');
  } else if (!is_none(indent)) {
    fail("tojson() has an indent that is a ", type_of(indent));
  }
  style.item_separator = style.indent ? "," : ", ";
  style.key_separator = ": ";
  if (!is_none(separators)) {
    const std::span<const Value> both = iterate(memory, separators);
    if (both.size() != 2 || text_in(both[0]) == nullptr || text_in(both[1]) == nullptr)
      fail("tojson() has separators that are not two texts");
    style.item_separator = text_in(both[0])->bytes;
    style.key_separator = text_in(both[1])->bytes;
  }
  return memory.text(to_json(memory, value, style));
}

constexpr NamedFilter kFilters[] = {
    {"abs", absolute},
    {"capitalize", changed<capitalize>},
    {"center", center},
    {"e", escaped},
    {"escape", escaped},
    {"float", floating},
    {"format", format},
    {"indent", indent},
    {"int", integer},
    {"lower", changed<lower>},
    {"replace", replaced},
    {"round", rounded},
    {"safe", safe},
    {"string", string},
    {"title", changed<titled>},
    {"tojson", json},
    {"trim", trim},
    {"truncate", truncate},
    {"upper", changed<upper>},
    {"urlencode", url_encode},
    {"wordcount", word_count},
};

}  // namespace

std::span<const NamedFilter> text_filters() { return kFilters; }

}  // namespace gptq::jinja
