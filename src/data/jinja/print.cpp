#include "data/jinja/print.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "data/jinja/collections.h"
#include "data/jinja/memory.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

void append_repr(Memory& memory, const Value& value, std::string& out);

template <typename Items, typename Append>
void append_items(Memory& memory, const Items& items, std::string& out, const Append& append) {
  bool first = true;
  for (const auto& item : items) {
    if (!first) out += ", ";
    first = false;
    append(item);
    memory.require(out.size());
  }
}

void append_list(Memory& memory, const List& list, std::string& out) {
  const auto append = [&](const Value& item) { append_repr(memory, item, out); };
  switch (list.shape) {
    case List::Shape::kTuple:
      out += '(';
      append_items(memory, list.items, out, append);
      out += list.items.size() == 1 ? ",)" : ")";
      return;
    case List::Shape::kIterator:
      refuse("printing a generator");
    case List::Shape::kRange:
      refuse("printing a range");
    case List::Shape::kKeys:
    case List::Shape::kValues:
    case List::Shape::kItems:
      out += type_of(const_cast<List*>(&list));
      out += "([";
      append_items(memory, list.items, out, append);
      out += "])";
      return;
    case List::Shape::kList:
      out += '[';
      append_items(memory, list.items, out, append);
      out += ']';
  }
}

void append_dict(Memory& memory, const Dict& dict, std::string& out) {
  out += '{';
  append_items(memory, dict.entries, out, [&](const auto& entry) {
    append_repr(memory, entry.first, out);
    out += ": ";
    append_repr(memory, entry.second, out);
  });
  out += '}';
}

void append_repr(Memory& memory, const Value& value, std::string& out) {
  const Memory::Level level(memory);
  memory.step();
  if (is_missing(value)) {
    out += "Undefined";
  } else if (is_none(value)) {
    out += "None";
  } else if (const bool* truth = std::get_if<bool>(&value)) {
    out += *truth ? "True" : "False";
  } else if (const int64_t* integer = std::get_if<int64_t>(&value)) {
    out += std::to_string(*integer);
  } else if (const double* number = std::get_if<double>(&value)) {
    out += to_decimal(*number);
  } else if (const Text* text = text_in(value)) {
    memory.read(4 * text->bytes.size());
    if (text->markup) out += "Markup(";
    out += quoted(text->bytes);
    if (text->markup) out += ')';
  } else if (const List* list = list_in(value)) {
    append_list(memory, *list, out);
  } else if (const Dict* dict = dict_in(value)) {
    append_dict(memory, *dict, out);
  } else {
    refuse("printing a ", type_of(value));
  }
}

// Writes JSON as json.dumps() does.
class JsonWriter {
 public:
  JsonWriter(Memory& memory, const JsonStyle& style, std::string& out) : memory_(memory), style_(style), out_(out) {}

  void write(const Value& value) {
    const Memory::Level level(memory_);
    memory_.step();
    if (is_none(value)) {
      out_ += "null";
    } else if (const bool* truth = std::get_if<bool>(&value)) {
      out_ += *truth ? "true" : "false";
    } else if (const int64_t* integer = std::get_if<int64_t>(&value)) {
      out_ += std::to_string(*integer);
    } else if (const double* number = std::get_if<double>(&value)) {
      out_ += decimal(*number);
    } else if (const Text* text = text_in(value)) {
      write_text(text->bytes);
    } else if (const List* list = list_in(value);
               list != nullptr && (list->shape == List::Shape::kList || list->shape == List::Shape::kTuple)) {
      write_all('[', list->items, ']', [&](const Value& item) { write(item); });
    } else if (const Dict* dict = dict_in(value)) {
      write_dict(*dict);
    } else {
      fail("a ", type_of(value), " cannot be written as JSON");
    }
  }

 private:
  template <typename Items, typename Write>
  void write_all(char open, const Items& items, char close, const Write& write_item) {
    out_ += open;
    ++depth_;
    bool first = true;
    for (const auto& item : items) {
      if (!first) out_ += style_.item_separator;
      first = false;
      new_line();
      write_item(item);
      memory_.require(out_.size());
    }
    --depth_;
    if (!first) new_line();
    out_ += close;
  }

  void new_line() {
    if (!style_.indent) return;
    out_ += '\n';
    memory_.require(out_.size() + depth_ * style_.indent->size());
    for (size_t i = 0; i < depth_; ++i) out_ += *style_.indent;
  }

  void write_dict(const Dict& dict) {
    auto entries = dict.entries;
    if (style_.sorted)
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto& a, const auto& b) { return less(memory_, a.first, b.first); });
    write_all('{', entries, '}', [&](const auto& entry) {
      write_text(key_of(entry.first));
      out_ += style_.key_separator;
      write(entry.second);
    });
  }

  static std::string key_of(const Value& key) {
    if (const Text* text = text_in(key)) return std::string(text->bytes);
    if (const bool* truth = std::get_if<bool>(&key)) return *truth ? "true" : "false";
    if (const int64_t* integer = std::get_if<int64_t>(&key)) return std::to_string(*integer);
    if (const double* number = std::get_if<double>(&key)) return decimal(*number);
    if (is_none(key)) return "null";
    fail("a ", type_of(key), " cannot be a key of JSON");
  }

  static std::string decimal(double number) {
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
    return to_decimal(number);
  }

  void write_unit(char32_t unit) {
    std::array<char, 16> digits{};
    std::snprintf(digits.data(), digits.size(), "\\u%04x", static_cast<unsigned>(unit));
    out_ += digits.data();
  }

  void write_text(std::string_view text) {
    memory_.read(4 * text.size());
    memory_.require(out_.size() + text.size());
    out_ += '"';
    for (size_t at = 0; at < text.size();) {
      const char32_t c = next_character(text, at);
      constexpr std::string_view kShort = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
      const size_t found = c < 0x80 ? kShort.find(static_cast<char>(c)) : kShort.npos;
      if (found != kShort.npos) {
        out_ += {'\\', kLetters[found]};
      } else if (c < 0x20 || (style_.ascii && c >= 0x7f && c < 0x10000)) {
        write_unit(c);
      } else if (style_.ascii && c >= 0x10000) {
        write_unit(0xd800 + ((c - 0x10000) >> 10));
        write_unit(0xdc00 + ((c - 0x10000) & 0x3ff));
      } else {
        append_utf8(out_, c);
      }
    }
    out_ += '"';
  }

  Memory& memory_;
  const JsonStyle& style_;
  std::string& out_;
  size_t depth_ = 0;
};

}  // namespace

std::string to_decimal(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number, std::chars_format::scientific);
  const std::string_view shortest(buffer.data(), static_cast<size_t>(end.ptr - buffer.data()));
  const size_t mark = shortest.find('e');
  const int exponent = std::atoi(buffer.data() + mark + 1);
  if (exponent < -4 || exponent >= 16) return std::string(shortest);
  const auto fixed = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number, std::chars_format::fixed);
  std::string text(buffer.data(), fixed.ptr);
  if (text.find('.') == text.npos) text += ".0";
  return text;
}

std::string repr(Memory& memory, const Value& value) {
  std::string out;
  append_repr(memory, value, out);
  return out;
}

Text to_text(Memory& memory, const Value& value) {
  if (const Text* text = text_in(value)) return *text;
  if (is_missing(value)) return {};
  return memory.text(repr(memory, value));
}

std::string to_json(Memory& memory, const Value& value, const JsonStyle& style) {
  std::string out;
  JsonWriter(memory, style, out).write(value);
  return out;
}

}  // namespace gptq::jinja
