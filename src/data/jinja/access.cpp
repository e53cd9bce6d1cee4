// Attributes, items and slices.
#include <algorithm>
#include <limits>
#include <optional>

#include "data/jinja/arguments.h"
#include "data/jinja/collections.h"
#include "data/jinja/memory.h"
#include "data/jinja/methods.h"
#include "data/jinja/operators.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

bool is_one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value last_or_missing(const Loop& loop, int64_t index, std::string_view name) {
  const bool inside = index >= 0 && index < static_cast<int64_t>(loop.items.size());
  return inside ? loop.items[static_cast<size_t>(index)] : Value(Missing{name, "the loop"});
}

Value loop_attribute(Memory& memory, Loop* loop, std::string_view name) {
  const auto count = static_cast<int64_t>(loop->items.size());
  if (name == "index0") return loop->index;
  if (name == "index") return loop->index + 1;
  if (name == "revindex0") return count - loop->index - 1;
  if (name == "revindex") return count - loop->index;
  if (name == "first") return loop->index == 0;
  if (name == "last") return loop->index + 1 == count;
  if (name == "length") return count;
  if (name == "depth0") return loop->depth;
  if (name == "depth") return loop->depth + 1;
  if (name == "previtem") return last_or_missing(*loop, loop->index - 1, name);
  if (name == "nextitem") return last_or_missing(*loop, loop->index + 1, name);
  if (name == "cycle")
    return memory.callable("cycle", [loop](Arguments& arguments) -> Value {
      const std::vector<Value> items = arguments.take_rest();
      arguments.end();
      if (items.empty()) fail("cycle() has nothing to cycle through");
      return items[static_cast<size_t>(loop->index) % items.size()];
    });
  if (name == "changed")
    return memory.callable("changed", [loop, &memory](Arguments& arguments) -> Value {
      std::vector<Value> values = arguments.take_rest();
      arguments.end();
      bool changed = !loop->has_changed_value || values.size() != loop->changed_value.size();
      for (size_t i = 0; !changed && i < values.size(); ++i)
        changed = !equal(memory, values[i], loop->changed_value[i]);
      loop->has_changed_value = true;
      loop->changed_value = std::move(values);
      return changed;
    });
  return Missing{name, "the loop"};
}

Value missing_in(const Value& value, std::string_view name) { return Missing{name, type_of(value)}; }

// An attribute in Python's sense: a method, or what a namespace or a loop has.
std::optional<Value> own_attribute(Memory& memory, const Value& value, std::string_view name) {
  if (name.starts_with("__")) return missing_in(value, name);  // which the sandbox hides
  Callable* method = nullptr;
  if (const Text* text = text_in(value)) method = text_method(memory, *text, name);
  if (List* list = list_in(value)) {
    if (is_one_of(name, {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"}) &&
        list->shape == List::Shape::kList)
      return missing_in(value, name);
    if (list->is_group && (name == "grouper" || name == "list")) return list->items[name == "list" ? 1 : 0];
    method = list_method(memory, list, name);
  }
  if (Dict* dict = dict_in(value)) {
    if (is_one_of(name, {"clear", "pop", "popitem", "setdefault", "update"})) return missing_in(value, name);
    method = dict_method(memory, dict, name);
  }
  if (method != nullptr) return method;
  if (Loop* const* loop = std::get_if<Loop*>(&value)) return loop_attribute(memory, *loop, name);
  if (Namespace* const* name_space = std::get_if<Namespace*>(&value)) {
    const auto found = (*name_space)->attributes.find(name);
    if (found != (*name_space)->attributes.end() && !name.starts_with('_')) return found->second;
  }
  const bool is_number = std::holds_alternative<int64_t>(value) || std::holds_alternative<double>(value);
  if (is_number && is_one_of(name, {"real", "imag", "is_integer", "bit_length", "conjugate", "numerator", "denominator",
                                    "as_integer_ratio", "hex"}))
    refuse("the attribute ", name, " of a number");
  if (std::holds_alternative<Callable*>(value) &&
      is_one_of(name, {"name", "arguments", "caller", "catch_kwargs", "catch_varargs"}))
    refuse("the attribute ", name, " of a macro");
  return std::nullopt;
}

// value[key] without a look at attributes.
std::optional<Value> item(Memory& memory, const Value& value, const Value& key) {
  if (const Dict* dict = dict_in(value)) {
    const List* list = list_in(key);
    if (dict_in(key) != nullptr || (list != nullptr && list->shape != List::Shape::kTuple)) return std::nullopt;
    const Value* found = find(memory, *dict, key);
    return found == nullptr ? std::nullopt : std::optional(*found);
  }
  const auto position = whole_in(key);
  if (!position) return std::nullopt;
  if (const List* list = list_in(value)) {
    const auto count = static_cast<int64_t>(list->items.size());
    const int64_t at = *position < 0 ? *position + count : *position;
    if (list->shape > List::Shape::kRange || at < 0 || at >= count) return std::nullopt;
    return list->items[static_cast<size_t>(at)];
  }
  if (const Text* text = text_in(value)) {
    memory.read(text->bytes.size());
    const int64_t at = *position < 0 ? *position + length(text->bytes) : *position;
    const size_t start = at < 0 ? text->bytes.size() : byte_at(text->bytes, at);
    if (start == text->bytes.size()) return std::nullopt;
    size_t end = start;
    next_character(text->bytes, end);
    return Text{text->bytes.substr(start, end - start), text->markup};
  }
  return std::nullopt;
}

// The first position, how many there are, and the step of a slice of `count` items, as Python clips them.
struct Range {
  int64_t start = 0, count = 0, step = 1;
};

Range range_of(const Value& start, const Value& stop, const Value& step, int64_t count) {
  const auto bound = [](const Value& value) -> std::optional<int64_t> {
    if (is_none(value)) return std::nullopt;
    if (const auto whole = whole_in(value)) return whole;
    if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
    fail("a slice has a ", type_of(value), " where an int was expected");
  };
  Range range;
  range.step = bound(step).value_or(1);
  if (range.step == 0) fail("a slice has a step of 0");
  range.step = std::max(range.step, -std::numeric_limits<int64_t>::max());
  const bool backward = range.step < 0;
  const auto clipped = [&](const Value& value, int64_t or_else) {
    const auto given = bound(value);
    if (!given) return or_else;
    const int64_t at = *given < 0 ? *given + count : *given;
    return backward ? std::clamp<int64_t>(at, -1, count - 1) : std::clamp<int64_t>(at, 0, count);
  };
  range.start = clipped(start, backward ? count - 1 : 0);
  const int64_t end = clipped(stop, backward ? -1 : count);
  const int64_t span = backward ? range.start - end : end - range.start;
  const int64_t stride = backward ? -range.step : range.step;
  range.count = span <= 0 ? 0 : 1 + (span - 1) / stride;
  return range;
}

}  // namespace

Value attribute(Memory& memory, const Value& value, std::string_view name) {
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  if (const auto own = own_attribute(memory, value, name)) return *own;
  if (const auto found = item(memory, value, Text{name})) return *found;
  return missing_in(value, name);
}

Value subscript(Memory& memory, const Value& value, const Value& key) {
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  if (const auto found = item(memory, value, key)) return *found;
  const Text* name = text_in(key);
  if (name == nullptr) return missing_in(value, "[...]");
  if (const auto own = own_attribute(memory, value, name->bytes)) return *own;
  return missing_in(value, name->bytes);
}

Value slice(Memory& memory, const Value& value, const Value& start, const Value& stop, const Value& step) {
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  if (const List* list = list_in(value); list != nullptr && list->shape <= List::Shape::kRange) {
    const Range range = range_of(start, stop, step, static_cast<int64_t>(list->items.size()));
    memory.require(static_cast<size_t>(range.count) * sizeof(Value));
    std::vector<Value> items;
    items.reserve(static_cast<size_t>(range.count));
    for (int64_t i = 0; i < range.count; ++i)
      items.push_back(list->items[static_cast<size_t>(range.start + i * range.step)]);
    return memory.list(std::move(items), list->shape);
  }
  const Text* text = text_in(value);
  if (text == nullptr) fail("a ", type_of(value), " has no slices");
  memory.read(2 * text->bytes.size());
  const Range range = range_of(start, stop, step, length(text->bytes));
  if (range.step == 1) return Text{part(text->bytes, range.start, range.start + range.count), text->markup};
  std::vector<std::string_view> characters;
  memory.grow(text->bytes.size() * sizeof(std::string_view));
  for (size_t at = 0; at < text->bytes.size();) {
    const size_t first = at;
    next_character(text->bytes, at);
    characters.push_back(text->bytes.substr(first, at - first));
  }
  std::string made;
  for (int64_t i = 0; i < range.count; ++i) made += characters[static_cast<size_t>(range.start + i * range.step)];
  return memory.text(std::move(made), text->markup);
}

}  // namespace gptq::jinja
