#include "data/jinja/methods.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "data/jinja/arguments.h"
#include "data/jinja/collections.h"
#include "data/jinja/format.h"
#include "data/jinja/memory.h"
#include "data/jinja/print.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

using Method = Value (*)(Memory&, const Text&, Arguments&);

template <std::string (*change)(std::string_view)>
Value changed(Memory& memory, const Text& self, Arguments&) {
  memory.require(3 * self.bytes.size());
  memory.read(8 * self.bytes.size());
  return memory.text(change(self.bytes), self.markup);
}

template <bool (*has_property)(char32_t)>
Value is_every(Memory& memory, const Text& self, Arguments&) {
  memory.read(8 * self.bytes.size());
  return is_all(self.bytes, has_property);
}

template <Side side>
Value stripped(Memory& memory, const Text& self, Arguments& arguments) {
  const auto characters = arguments.take("chars");
  std::optional<std::string_view> given;
  if (characters && !is_none(*characters)) {
    const Text* text = text_in(*characters);
    if (text == nullptr) fail(arguments.function(), "() has a ", type_of(*characters), " where a str was expected");
    given = text->bytes;
    memory.step(1 + self.bytes.size() / 64 * (1 + given->size() / 16));
  }
  memory.read(self.bytes.size());
  return Text{strip(self.bytes, side, given), self.markup};
}

size_t matches(std::string_view text, std::string_view part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

template <bool from_right>
Value parts(Memory& memory, const Text& self, Arguments& arguments) {
  const Value separator = arguments.take("sep").value_or(None{});
  const int64_t limit = arguments.integer("maxsplit", -1);
  std::optional<std::string_view> given;
  if (!is_none(separator)) {
    const Text* text = text_in(separator);
    if (text == nullptr) fail(arguments.function(), "() has a ", type_of(separator), " where a str was expected");
    if (text->bytes.empty()) fail(arguments.function(), "() has an empty separator");
    given = text->bytes;
  }
  memory.read(4 * self.bytes.size());
  const size_t most = given ? matches(self.bytes, *given) : self.bytes.size() / 2;
  memory.require((2 + std::min(most, static_cast<uint64_t>(limit))) * (sizeof(Value) + sizeof(std::string_view)));
  std::vector<Value> items;
  for (const std::string_view part :
       from_right ? split_right(self.bytes, given, limit) : split(self.bytes, given, limit)) {
    items.emplace_back(Text{part, self.markup});
  }
  return memory.list(std::move(items));
}

Value lines(Memory& memory, const Text& self, Arguments& arguments) {
  const bool keep_ends = arguments.flag("keepends", false);
  memory.read(4 * self.bytes.size());
  const auto most = static_cast<size_t>(std::count_if(self.bytes.begin(), self.bytes.end(), [](char c) {
    return static_cast<uint8_t>(c) < 0x20 || static_cast<uint8_t>(c) >= 0x80;  // each end of a line has one
  }));
  memory.require((1 + most) * (sizeof(Value) + sizeof(std::string_view)));
  std::vector<Value> items;
  for (const std::string_view line : split_lines(self.bytes, keep_ends)) {
    items.emplace_back(Text{line, self.markup});
  }
  return memory.list(std::move(items));
}

// self[start:stop] of the optional last arguments, which must be from 0 on; and where it starts.
std::pair<std::string_view, int64_t> searched(Memory& memory, const Text& self, Arguments& arguments) {
  memory.read(2 * self.bytes.size());
  if (arguments.positional.size() < 2) return {self.bytes, 0};
  const int64_t count = length(self.bytes);
  const auto bound = [&](std::string_view name, int64_t or_else) {
    const int64_t at = arguments.integer(name, or_else);
    return std::clamp<int64_t>(at < 0 ? at + count : at, 0, count + 1);
  };
  const int64_t start = bound("start", 0), stop = bound("end", count);
  if (start > count) return {std::string_view(), -1};
  return {part(self.bytes, start, stop), start};
}

template <bool last>
Value found(Memory& memory, const Text& self, Arguments& arguments) {
  const std::string_view sought = arguments.text("sub");
  const auto [text, start] = searched(memory, self, arguments);
  const size_t at = start < 0 ? text.npos : last ? text.rfind(sought) : text.find(sought);
  if (at != text.npos) return start + length(text.substr(0, at));
  if (arguments.function().ends_with("index")) fail("index() does not find what it looks for");
  return int64_t{-1};
}

Value counted(Memory& memory, const Text& self, Arguments& arguments) {
  const std::string_view sought = arguments.text("sub");
  const auto [text, start] = searched(memory, self, arguments);
  if (start < 0) return int64_t{0};
  if (sought.empty()) return length(text) + 1;
  return static_cast<int64_t>(matches(text, sought));
}

template <bool at_end>
Value is_affixed(Memory& memory, const Text& self, Arguments& arguments) {
  const Value affix = arguments.required("prefix");
  const auto [text, start] = searched(memory, self, arguments);
  if (start < 0) return false;
  const auto has = [&, text = text](const Value& one) {
    const Text* part = text_in(one);
    if (part == nullptr) fail(arguments.function(), "() has a ", type_of(one), " where a str was expected");
    return at_end ? text.ends_with(part->bytes) : text.starts_with(part->bytes);
  };
  const List* several = list_in(affix);
  if (several == nullptr || several->shape != List::Shape::kTuple) return has(affix);
  return std::any_of(several->items.begin(), several->items.end(), has);
}

Value replaced(Memory& memory, const Text& self, Arguments& arguments) {
  const std::string_view from = arguments.text("old"), to = arguments.text("new");
  const int64_t count = arguments.integer("count", -1);
  memory.read(4 * self.bytes.size());
  memory.require(replaced_size(self.bytes, from, to, count));
  return memory.text(replace(self.bytes, from, to, count));
}

template <bool at_end>
Value without_affix(Memory&, const Text& self, Arguments& arguments) {
  const std::string_view affix = arguments.text("prefix");
  std::string_view text = self.bytes;
  if (at_end && text.ends_with(affix)) text.remove_suffix(affix.size());
  if (!at_end && text.starts_with(affix)) text.remove_prefix(affix.size());
  return Text{text, self.markup};
}

template <bool last>
Value partitioned(Memory& memory, const Text& self, Arguments& arguments) {
  const std::string_view separator = arguments.text("sep"), text = self.bytes;
  if (separator.empty()) fail(arguments.function(), "() has an empty separator");
  memory.read(text.size());
  const size_t at = last ? text.rfind(separator) : text.find(separator);
  std::vector<Value> items = {Text{text}, Text{}, Text{}};
  if (at != text.npos) {
    items = {Text{text.substr(0, at)}, Text{separator}, Text{text.substr(at + separator.size())}};
  } else if (last) {
    std::swap(items[0], items[2]);
  }
  return memory.list(std::move(items), List::Shape::kTuple);
}

// center(), ljust(), rjust() and zfill(), by the share of the filling that goes in front.
enum class Filling { kBoth, kRight, kLeft, kZeros };
template <Filling filling>
Value filled(Memory& memory, const Text& self, Arguments& arguments) {
  const int64_t width = arguments.integer("width");
  const std::string_view fill = filling == Filling::kZeros ? "0" : arguments.text("fillchar", " ");
  if (length(fill) != 1) fail(arguments.function(), "() fills with one character");
  memory.read(self.bytes.size());
  const int64_t missing = std::max<int64_t>(width - length(self.bytes), 0);
  memory.require(static_cast<size_t>(std::min(missing, std::numeric_limits<int64_t>::max() / 8)) * fill.size());
  int64_t before = filling == Filling::kRight ? 0 : missing;
  if (filling == Filling::kBoth) before = missing / 2 + (missing & width & 1);  // where Python puts the odd one
  std::string made, text(self.bytes);
  if (filling == Filling::kZeros && (text.starts_with('-') || text.starts_with('+'))) {
    made = text.substr(0, 1);
    text.erase(0, 1);
  }
  for (int64_t i = 0; i < before; ++i) made += fill;
  made += text;
  for (int64_t i = before; i < missing; ++i) made += fill;
  return memory.text(std::move(made), self.markup);
}

Value joined(Memory& memory, const Text& self, Arguments& arguments) {
  const std::span<const Value> items = iterate(memory, arguments.required("iterable"));
  for (const Value& item : items)
    if (text_in(item) == nullptr) fail("join() has a ", type_of(item), " where a str was expected");
  return join(memory, self.bytes, items);
}

Value formatted(Memory& memory, const Text& self, Arguments& arguments) {
  std::string made = format_braces(memory, self.bytes, arguments);
  arguments.take_rest(), arguments.named.clear();
  return memory.text(std::move(made));
}

bool is_alphanumeric(char32_t c) { return is_letter(c) || is_digit(c) || is_numeric(c); }
bool is_numeric_character(char32_t c) { return is_numeric(c) || is_digit(c); }
bool is_ascii_character(char32_t c) { return c < 0x80; }

struct Named {
  std::string_view name;
  Method method;
  bool keeps_markup = false;  // the method of a text marked as safe does the same
};

constexpr Named kTextMethods[] = {
    {"strip", stripped<Side::kBoth>, true},
    {"lstrip", stripped<Side::kLeft>, true},
    {"rstrip", stripped<Side::kRight>, true},
    {"split", parts<false>, true},
    {"rsplit", parts<true>, true},
    {"splitlines", lines, true},
    {"startswith", is_affixed<false>, true},
    {"endswith", is_affixed<true>, true},
    {"replace", replaced},
    {"upper", changed<upper>, true},
    {"lower", changed<lower>, true},
    {"title", changed<title>, true},
    {"capitalize", changed<capitalize>, true},
    {"swapcase", changed<swap_case>, true},
    {"find", found<false>, true},
    {"rfind", found<true>, true},
    {"index", found<false>, true},
    {"rindex", found<true>, true},
    {"count", counted, true},
    {"join", joined},
    {"format", formatted},
    {"removeprefix", without_affix<false>, true},
    {"removesuffix", without_affix<true>, true},
    {"partition", partitioned<false>},
    {"rpartition", partitioned<true>},
    {"center", filled<Filling::kBoth>},
    {"ljust", filled<Filling::kRight>},
    {"rjust", filled<Filling::kLeft>},
    {"zfill", filled<Filling::kZeros>, true},
    {"isdigit", is_every<is_digit>, true},
    {"isdecimal", is_every<is_decimal>, true},
    {"isnumeric", is_every<is_numeric_character>, true},
    {"isalpha", is_every<is_letter>, true},
    {"isalnum", is_every<is_alphanumeric>, true},
    {"isspace", is_every<is_space>, true},
    {"isascii",
     [](Memory&, const Text& self, Arguments&) -> Value {
       return self.bytes.empty() || is_all(self.bytes, is_ascii_character);
     },
     true},
    {"isupper",
     [](Memory& memory, const Text& self, Arguments&) -> Value {
       memory.read(8 * self.bytes.size());
       return is_upper_case(self.bytes);
     },
     true},
    {"islower",
     [](Memory& memory, const Text& self, Arguments&) -> Value {
       memory.read(8 * self.bytes.size());
       return is_lower_case(self.bytes);
     },
     true},
};

constexpr std::string_view kOtherTextMethods[] = {"casefold",    "encode",       "expandtabs", "format_map", "istitle",
                                                  "isprintable", "isidentifier", "maketrans",  "translate"};

template <typename Names, typename Name>
auto find_named(const Names& names, const Name& name) {
  return std::find_if(std::begin(names), std::end(names), [&](const auto& named) { return named.name == name; });
}

Value index_in(Memory& memory, const List& self, Arguments& arguments) {
  const Value sought = arguments.required("value");
  const auto count = static_cast<int64_t>(self.items.size());
  int64_t start = arguments.integer("start", 0), stop = arguments.integer("stop", count);
  if (start < 0) start = std::max<int64_t>(start + count, 0);
  if (stop < 0) stop += count;
  for (int64_t i = start; i < std::min(stop, count); ++i)
    if (equal(memory, self.items[static_cast<size_t>(i)], sought)) return i;
  fail("index() does not find what it looks for");
}

Value get(Memory& memory, const Dict& self, Arguments& arguments) {
  const Value key = arguments.required("key"), or_else = arguments.take("default").value_or(None{});
  const List* list = list_in(key);
  if (dict_in(key) != nullptr || (list != nullptr && list->shape != List::Shape::kTuple))
    fail("a ", type_of(key), " cannot be a key");
  const Value* value = find(memory, self, key);
  return value == nullptr ? or_else : *value;
}

}  // namespace

Text join(Memory& memory, std::string_view separator, std::span<const Value> texts) {
  std::string made;
  for (size_t i = 0; i < texts.size(); ++i) {
    const std::string_view text = to_text(memory, texts[i]).bytes;
    memory.step();
    memory.require(made.size() + text.size() + separator.size());
    if (i > 0) made += separator;
    made += text;
  }
  return memory.text(std::move(made));
}

List* view_of(Memory& memory, const Dict& dict, List::Shape shape) {
  memory.require(dict.entries.size() * sizeof(Value));
  std::vector<Value> items;
  items.reserve(dict.entries.size());
  for (const auto& [key, value] : dict.entries) {
    if (shape == List::Shape::kKeys) items.push_back(key);
    if (shape == List::Shape::kValues) items.push_back(value);
    if (shape == List::Shape::kItems) items.emplace_back(memory.list({key, value}, List::Shape::kTuple));
  }
  return memory.list(std::move(items), shape);
}

Callable* text_method(Memory& memory, const Text& self, std::string_view name) {
  const Named* named = find_named(kTextMethods, name);
  if (named == std::end(kTextMethods)) {
    if (std::find(std::begin(kOtherTextMethods), std::end(kOtherTextMethods), name) != std::end(kOtherTextMethods))
      refuse("the method ", name, "() of a str");
    return nullptr;
  }
  if (self.markup && !named->keeps_markup) refuse("the method ", name, "() of a text that is marked as safe");
  return memory.callable(named->name, [&memory, self, method = named->method](Arguments& arguments) {
    Value result = method(memory, self, arguments);
    arguments.end();
    return result;
  });
}

Callable* list_method(Memory& memory, List* self, std::string_view name) {
  const bool has_methods = self->shape <= List::Shape::kRange;
  if (has_methods && name == "index")
    return memory.callable("index", [&memory, self](Arguments& arguments) {
      Value result = index_in(memory, *self, arguments);
      arguments.end();
      return result;
    });
  if (has_methods && name == "count")
    return memory.callable("count", [&memory, self](Arguments& arguments) -> Value {
      const Value sought = arguments.required("value");
      arguments.end();
      return static_cast<int64_t>(std::count_if(self->items.begin(), self->items.end(),
                                                [&](const Value& item) { return equal(memory, item, sought); }));
    });
  if (self->shape == List::Shape::kList && name == "copy")
    return memory.callable("copy", [&memory, self](Arguments& arguments) -> Value {
      arguments.end();
      return memory.list(self->items);
    });
  if (self->shape == List::Shape::kRange && (name == "start" || name == "stop" || name == "step"))
    refuse("the attribute ", name, " of a range");
  return nullptr;
}

Callable* dict_method(Memory& memory, Dict* self, std::string_view name) {
  if (name == "get")
    return memory.callable("get", [&memory, self](Arguments& arguments) {
      Value result = get(memory, *self, arguments);
      arguments.end();
      return result;
    });
  if (name == "copy")
    return memory.callable("copy", [self](Arguments& arguments) -> Value {
      arguments.end();
      return self;  // as nothing changes it
    });
  if (name == "fromkeys") refuse("the method fromkeys() of a dict");
  constexpr std::pair<std::string_view, List::Shape> kViews[] = {
      {"items", List::Shape::kItems}, {"keys", List::Shape::kKeys}, {"values", List::Shape::kValues}};
  for (const auto& [view, shape] : kViews) {
    if (name != view) continue;
    return memory.callable(view, [&memory, self, shape = shape](Arguments& arguments) -> Value {
      arguments.end();
      return view_of(memory, *self, shape);
    });
  }
  return nullptr;
}

}  // namespace gptq::jinja
