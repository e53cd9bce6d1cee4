// Filters of values that have items.
#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "data/jinja/collections.h"
#include "data/jinja/filters.h"
#include "data/jinja/memory.h"
#include "data/jinja/methods.h"
#include "data/jinja/operators.h"
#include "data/jinja/print.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

using Shape = List::Shape;

std::vector<Value> copied(Memory& memory, const Value& value) {
  const std::span<const Value> items = iterate(memory, value);
  memory.step(1 + items.size() / 8);
  memory.grow(items.size() * sizeof(Value));
  return {items.begin(), items.end()};
}

// What attribute="a.b.0" means: items of items.
class Path {
 public:
  explicit Path(std::optional<Value> attribute) {
    if (!attribute || is_none(*attribute)) return;
    const Text* text = text_in(*attribute);
    if (text == nullptr) {
      keys_.push_back(*attribute);
      return;
    }
    for (const std::string_view key : split(text->bytes, ".", -1)) {
      int64_t index = 0;
      std::from_chars(key.data(), key.data() + key.size(), index);
      keys_.push_back(is_all(key, is_decimal) ? Value(index) : Value(Text{key}));
    }
  }

  Value of(Memory& memory, Value value, const Value& or_else = None{}) const {
    for (const Value& key : keys_) {
      value = subscript(memory, value, key);
      if (is_missing(value) && !is_none(or_else)) value = or_else;
    }
    return value;
  }

 private:
  std::vector<Value> keys_;
};

Value without_case(Memory& memory, const Value& value, bool case_sensitive) {
  const Text* text = text_in(value);
  if (case_sensitive || text == nullptr) return value;
  memory.read(8 * text->bytes.size());
  return memory.text(lower(text->bytes));
}

// Sorted by keys; equal ones stay in their order, reversed or not.
std::vector<Value> sorted(Memory& memory, std::vector<std::pair<Value, Value>> keyed, bool reverse) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? less(memory, b.first, a.first) : less(memory, a.first, b.first);
  });
  std::vector<Value> values;
  values.reserve(keyed.size());
  for (const auto& [key, value] : keyed) values.push_back(value);
  return values;
}

Value or_default(Memory&, const Value& value, Arguments& arguments) {
  const Value or_else = arguments.take("default_value").value_or(Text{});
  const bool also_false = arguments.flag("boolean", false);
  return is_missing(value) || (also_false && !truth(value)) ? or_else : value;
}

Value count(Memory& memory, const Value& value, Arguments&) {
  if (const Text* text = text_in(value)) memory.read(text->bytes.size());
  return length_of(value);
}

Value joined(Memory& memory, const Value& value, Arguments& arguments) {
  const std::string_view separator = to_text(memory, arguments.take("d").value_or(Text{})).bytes;
  const Path path(arguments.take("attribute"));
  std::vector<Value> items = copied(memory, value);
  for (Value& item : items) item = path.of(memory, item);
  return join(memory, separator, items);
}

Value first(Memory& memory, const Value& value, Arguments&) {
  List* list = list_in(value);
  if (list != nullptr && list->shape == Shape::kIterator && list->next < list->items.size())
    return list->items[list->next++];
  if (const Text* text = text_in(value); text != nullptr && !text->bytes.empty())
    return subscript(memory, value, int64_t{0});
  const std::span<const Value> items = iterate(memory, value);
  return items.empty() ? Missing{"first item"} : items.front();
}

Value last(Memory& memory, const Value& value, Arguments&) {
  const List* list = list_in(value);
  if (list != nullptr && list->shape == Shape::kIterator) fail("last() of a generator");
  if (const Text* text = text_in(value); text != nullptr && !text->bytes.empty())
    return subscript(memory, value, int64_t{-1});
  const std::span<const Value> items = iterate(memory, value);
  return items.empty() ? Missing{"last item"} : items.back();
}

Value listed(Memory& memory, const Value& value, Arguments&) { return memory.list(copied(memory, value)); }

Value reversed(Memory& memory, const Value& value, Arguments&) {
  if (text_in(value) != nullptr) return slice(memory, value, None{}, None{}, int64_t{-1});
  const List* list = list_in(value);
  std::vector<Value> items = copied(memory, value);
  std::reverse(items.begin(), items.end());
  return memory.list(std::move(items),
                     list != nullptr && list->shape == Shape::kIterator ? Shape::kList : Shape::kIterator);
}

Value items(Memory& memory, const Value& value, Arguments&) {
  if (is_missing(value)) return memory.list({}, Shape::kIterator);
  const Dict* dict = dict_in(value);
  if (dict == nullptr) fail("items() of a ", type_of(value), " where a dict was expected");
  List* pairs = view_of(memory, *dict, Shape::kItems);
  pairs->shape = Shape::kIterator;
  return pairs;
}

Value dict_sorted(Memory& memory, const Value& value, Arguments& arguments) {
  const bool case_sensitive = arguments.flag("case_sensitive", false);
  const std::string_view by = arguments.text("by", "key");
  const bool reverse = arguments.flag("reverse", false);
  const Dict* dict = dict_in(value);
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  if (dict == nullptr) fail("dictsort() of a ", type_of(value), " where a dict was expected");
  if (by != "key" && by != "value") fail("dictsort() sorts by \"key\" or \"value\"");
  std::vector<std::pair<Value, Value>> keyed;
  memory.grow(2 * dict->entries.size() * sizeof(Value));
  for (const auto& [key, item] : dict->entries)
    keyed.emplace_back(without_case(memory, by == "key" ? key : item, case_sensitive),
                       memory.list({key, item}, Shape::kTuple));
  return memory.list(sorted(memory, std::move(keyed), reverse));
}

Value sort(Memory& memory, const Value& value, Arguments& arguments) {
  const bool reverse = arguments.flag("reverse", false), case_sensitive = arguments.flag("case_sensitive", false);
  const Value attribute = arguments.take("attribute").value_or(None{});
  std::vector<Path> paths;
  if (const Text* names = text_in(attribute)) {
    for (const std::string_view name : split(names->bytes, ",", -1)) paths.emplace_back(Value(Text{name}));
  } else {
    paths.emplace_back(attribute);
  }
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : copied(memory, value)) {
    std::vector<Value> keys;
    keys.reserve(paths.size());
    for (const Path& path : paths) keys.push_back(without_case(memory, path.of(memory, item), case_sensitive));
    keyed.emplace_back(memory.list(std::move(keys)), item);
  }
  return memory.list(sorted(memory, std::move(keyed), reverse));
}

Value unique(Memory& memory, const Value& value, Arguments& arguments) {
  const bool case_sensitive = arguments.flag("case_sensitive", false);
  const Path path(arguments.take("attribute"));
  Dict* seen = memory.dict();
  std::vector<Value> kept;
  for (const Value& item : iterate(memory, value)) {
    const Value key = without_case(memory, path.of(memory, item), case_sensitive);
    const size_t before = seen->entries.size();
    insert(memory, *seen, key, None{});
    if (seen->entries.size() > before) kept.push_back(item);
  }
  return memory.list(std::move(kept), Shape::kIterator);
}

template <bool wants_largest>
Value extreme(Memory& memory, const Value& value, Arguments& arguments) {
  const bool case_sensitive = arguments.flag("case_sensitive", false);
  const Path path(arguments.take("attribute"));
  const std::span<const Value> all = iterate(memory, value);
  if (all.empty()) return Missing{wants_largest ? "largest item" : "smallest item"};
  const auto key_of = [&](const Value& item) { return without_case(memory, path.of(memory, item), case_sensitive); };
  Value best = all[0], best_key = key_of(all[0]);
  for (const Value& item : all.subspan(1)) {
    const Value key = key_of(item);
    if (!(wants_largest ? less(memory, best_key, key) : less(memory, key, best_key))) continue;
    best = item, best_key = key;
  }
  return best;
}

Value sum(Memory& memory, const Value& value, Arguments& arguments) {
  const Path path(arguments.take("attribute"));
  Value total = arguments.take("start").value_or(int64_t{0});
  if (text_in(total) != nullptr) fail("sum() starts with a str");
  for (const Value& item : iterate(memory, value)) total = calculate(memory, "+", total, path.of(memory, item));
  return total;
}

Value batch(Memory& memory, const Value& value, Arguments& arguments) {
  const int64_t size = arguments.integer("linecount");
  const Value fill = arguments.take("fill_with").value_or(None{});
  std::vector<Value> lines, line;
  for (const Value& item : copied(memory, value)) {
    if (static_cast<int64_t>(line.size()) == size) {
      lines.emplace_back(memory.list(std::move(line)));
      line.clear();
    }
    line.push_back(item);
  }
  if (!line.empty()) {
    const int64_t missing = is_none(fill) ? 0 : size - static_cast<int64_t>(line.size());
    if (missing > 0) {
      memory.require(static_cast<size_t>(std::min<int64_t>(missing, 1 << 30)) * sizeof(Value));
      line.insert(line.end(), static_cast<size_t>(missing), fill);
    }
    lines.emplace_back(memory.list(std::move(line)));
  }
  return memory.list(std::move(lines), Shape::kIterator);
}

Value sliced(Memory& memory, const Value& value, Arguments& arguments) {
  const int64_t slices = arguments.integer("slices");
  const Value fill = arguments.take("fill_with").value_or(None{});
  if (slices == 0) fail("slice() into 0 parts");
  const std::vector<Value> all = copied(memory, value);
  const auto count = static_cast<int64_t>(all.size());
  std::vector<Value> columns;
  int64_t start = 0;
  for (int64_t i = 0; i < slices; ++i) {
    const bool has_extra = i < count % slices;
    const int64_t end = start + count / slices + (has_extra ? 1 : 0);
    std::vector<Value> column(all.begin() + start, all.begin() + end);
    if (!is_none(fill) && !has_extra) column.push_back(fill);
    columns.emplace_back(memory.list(std::move(column)));
    start = end;
  }
  return memory.list(std::move(columns), Shape::kIterator);
}

Value group_by(Memory& memory, const Value& value, Arguments& arguments) {
  const Path path(arguments.required("attribute"));
  const Value or_else = arguments.take("default").value_or(None{});
  const bool case_sensitive = arguments.flag("case_sensitive", false);
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : copied(memory, value))
    keyed.emplace_back(without_case(memory, path.of(memory, item, or_else), case_sensitive), item);
  std::vector<Value> groups, group;
  const std::vector<Value> in_order = sorted(memory, std::move(keyed), false);
  const auto key_of = [&](const Value& item) { return path.of(memory, item, or_else); };
  const auto folded = [&](const Value& item) { return without_case(memory, key_of(item), case_sensitive); };
  for (size_t i = 0; i < in_order.size(); ++i) {
    group.push_back(in_order[i]);
    if (i + 1 < in_order.size() && equal(memory, folded(in_order[i]), folded(in_order[i + 1]))) continue;
    const Value key = key_of(group.front());
    List* pair = memory.list({key, memory.list(std::exchange(group, {}))}, Shape::kTuple);
    pair->is_group = true;
    groups.emplace_back(pair);
  }
  return memory.list(std::move(groups));
}

Value map(Memory& memory, const Value& value, Arguments& arguments) {
  std::vector<Value> made;
  const auto add = [&](const Value& item) {
    memory.step();
    made.push_back(item);
  };
  if (arguments.positional.empty()) {
    const auto attribute = arguments.take_named("attribute");
    if (!attribute) fail("map() lacks a filter");
    const Value or_else = arguments.take_named("default").value_or(None{});
    arguments.end();
    const Path path(attribute);
    for (const Value& item : iterate(memory, value)) add(path.of(memory, item, or_else));
  } else {
    const std::string_view name = arguments.text("name");
    Arguments rest(name);
    rest.positional = arguments.take_rest();
    rest.named = std::exchange(arguments.named, {});
    for (const Value& item : iterate(memory, value)) {
      Arguments given = rest;
      add(apply_filter(memory, name, item, given));
    }
  }
  return memory.list(std::move(made), Shape::kIterator);
}

template <bool by_attribute, bool kept_if>
Value selected(Memory& memory, const Value& value, Arguments& arguments) {
  std::optional<Value> attribute;
  if (by_attribute) attribute = arguments.required("attribute");
  const Path path(attribute);
  const auto name = arguments.take("test");
  if (name && text_in(*name) == nullptr) fail(arguments.function(), "() has a test that is no str");
  Arguments rest(name ? text_in(*name)->bytes : "truth");
  rest.positional = arguments.take_rest();
  rest.named = std::exchange(arguments.named, {});
  std::vector<Value> kept;
  if (!truth(value)) return memory.list({}, Shape::kIterator);
  for (const Value& item : iterate(memory, value)) {
    memory.step();
    const Value tested = path.of(memory, item);
    Arguments given = rest;
    if ((name ? apply_test(memory, given.function(), tested, given) : truth(tested)) == kept_if) kept.push_back(item);
  }
  return memory.list(std::move(kept), Shape::kIterator);
}

constexpr NamedFilter kFilters[] = {
    {"batch", batch},
    {"count", count},
    {"d", or_default},
    {"default", or_default},
    {"dictsort", dict_sorted},
    {"first", first},
    {"groupby", group_by},
    {"items", items},
    {"join", joined},
    {"last", last},
    {"length", count},
    {"list", listed},
    {"map", map},
    {"max", extreme<true>},
    {"min", extreme<false>},
    {"reject", selected<false, false>},
    {"rejectattr", selected<true, false>},
    {"reverse", reversed},
    {"select", selected<false, true>},
    {"selectattr", selected<true, true>},
    {"slice", sliced},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique},
};

}  // namespace

std::span<const NamedFilter> list_filters() { return kFilters; }

}  // namespace gptq::jinja
