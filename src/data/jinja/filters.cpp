#include "data/jinja/filters.h"

#include <algorithm>
#include <initializer_list>

#include "data/jinja/collections.h"
#include "data/jinja/memory.h"
#include "data/jinja/operators.h"
#include "data/jinja/print.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

constexpr std::string_view kOtherFilters[] = {"attr",      "filesizeformat", "forceescape", "pprint", "random",
                                              "striptags", "urlize",         "wordwrap",    "xmlattr"};

const NamedFilter* find_filter(std::string_view name) {
  for (const auto filters : {text_filters(), list_filters()})
    for (const NamedFilter& filter : filters)
      if (filter.name == name) return &filter;
  return nullptr;
}

bool is_number(const Value& value) {
  return std::holds_alternative<bool>(value) || std::holds_alternative<int64_t>(value) ||
         std::holds_alternative<double>(value);
}

bool is_true(const Value& value) { return value.index() == Value(true).index() && std::get<bool>(value); }
bool is_false(const Value& value) { return value.index() == Value(true).index() && !std::get<bool>(value); }

bool is_sequence(const Value& value) {
  const List* list = list_in(value);
  return text_in(value) != nullptr || dict_in(value) != nullptr || is_missing(value) ||
         (list != nullptr && list->shape <= List::Shape::kRange);
}

bool is_iterable(const Value& value) {
  return is_sequence(value) || list_in(value) != nullptr || std::holds_alternative<Loop*>(value);
}

bool is_divisible(Memory& memory, const Value& value, const Value& by) {
  return equal(memory, calculate(memory, "%", value, by), int64_t{0});
}

// The same object; for texts and numbers, which have no identity here, the same kind and value.
bool is_same(Memory& memory, const Value& left, const Value& right) {
  if (left.index() != right.index()) return false;
  if (List* a = list_in(left), *b = list_in(right); a != nullptr) return a == b;
  if (Dict* a = dict_in(left), *b = dict_in(right); a != nullptr) return a == b;
  return equal(memory, left, right);
}

template <bool (*has_property)(const Value&)>
bool test(Memory&, const Value& value, Arguments&) {
  return has_property(value);
}

template <bool (*has_relation)(Memory&, const Value&, const Value&)>
bool compare(Memory& memory, const Value& value, Arguments& arguments) {
  return has_relation(memory, value, arguments.required("other"));
}

bool is_unequal(Memory& memory, const Value& a, const Value& b) { return !equal(memory, a, b); }
bool is_greater(Memory& memory, const Value& a, const Value& b) { return less(memory, b, a); }
bool is_at_most(Memory& memory, const Value& a, const Value& b) { return less(memory, a, b) || equal(memory, a, b); }
bool is_at_least(Memory& memory, const Value& a, const Value& b) { return less(memory, b, a) || equal(memory, a, b); }
bool is_in(Memory& memory, const Value& item, const Value& container) { return contains(memory, container, item); }

struct NamedTest {
  std::string_view name;
  Test apply;
};

constexpr NamedTest kTests[] = {
    {"defined", test<[](const Value& v) { return !is_missing(v); }>},
    {"undefined", test<is_missing>},
    {"none", test<is_none>},
    {"boolean", test<[](const Value& v) { return std::holds_alternative<bool>(v); }>},
    {"true", test<is_true>},
    {"false", test<is_false>},
    {"integer", test<[](const Value& v) { return std::holds_alternative<int64_t>(v); }>},
    {"float", test<[](const Value& v) { return std::holds_alternative<double>(v); }>},
    {"number", test<is_number>},
    {"string", test<[](const Value& v) { return text_in(v) != nullptr; }>},
    {"mapping", test<[](const Value& v) { return dict_in(v) != nullptr; }>},
    {"sequence", test<is_sequence>},
    {"iterable", test<is_iterable>},
    {"callable", test<[](const Value& v) {
       return is_missing(v) || std::holds_alternative<Callable*>(v) || std::holds_alternative<Loop*>(v);
     }>},
    {"escaped", test<[](const Value& v) { return text_in(v) != nullptr && text_in(v)->markup; }>},
    {"lower", [](Memory& memory, const Value& v, Arguments&) { return is_lower_case(to_text(memory, v).bytes); }},
    {"upper", [](Memory& memory, const Value& v, Arguments&) { return is_upper_case(to_text(memory, v).bytes); }},
    {"even", [](Memory& memory, const Value& v, Arguments&) { return is_divisible(memory, v, int64_t{2}); }},
    {"odd", [](Memory& memory, const Value& v,
               Arguments&) { return equal(memory, calculate(memory, "%", v, int64_t{2}), int64_t{1}); }},
    {"divisibleby", compare<is_divisible>},
    {"sameas", compare<is_same>},
    {"in", compare<is_in>},
    {"==", compare<equal>},
    {"eq", compare<equal>},
    {"equalto", compare<equal>},
    {"!=", compare<is_unequal>},
    {"ne", compare<is_unequal>},
    {">", compare<is_greater>},
    {"gt", compare<is_greater>},
    {"greaterthan", compare<is_greater>},
    {">=", compare<is_at_least>},
    {"ge", compare<is_at_least>},
    {"<", compare<less>},
    {"lt", compare<less>},
    {"lessthan", compare<less>},
    {"<=", compare<is_at_most>},
    {"le", compare<is_at_most>},
    {"filter",
     [](Memory&, const Value& v, Arguments&) { return text_in(v) != nullptr && has_filter(text_in(v)->bytes); }},
    {"test", [](Memory&, const Value& v, Arguments&) { return text_in(v) != nullptr && has_test(text_in(v)->bytes); }},
};

const NamedTest* find_test(std::string_view name) {
  const auto* found =
      std::find_if(std::begin(kTests), std::end(kTests), [&](const NamedTest& t) { return t.name == name; });
  return found == std::end(kTests) ? nullptr : found;
}

bool is_other_filter(std::string_view name) {
  return std::find(std::begin(kOtherFilters), std::end(kOtherFilters), name) != std::end(kOtherFilters);
}

}  // namespace

bool has_filter(std::string_view name) { return find_filter(name) != nullptr || is_other_filter(name); }
bool has_test(std::string_view name) { return find_test(name) != nullptr; }

Value apply_filter(Memory& memory, std::string_view name, const Value& value, Arguments& arguments) {
  const NamedFilter* filter = find_filter(name);
  if (filter == nullptr && is_other_filter(name)) refuse("the filter ", name);
  if (filter == nullptr) fail("there is no filter \"", shown(name), "\"");
  const Memory::Level level(memory);
  memory.step();
  Value result = filter->apply(memory, value, arguments);
  arguments.end();
  return result;
}

bool apply_test(Memory& memory, std::string_view name, const Value& value, Arguments& arguments) {
  const NamedTest* test = find_test(name);
  if (test == nullptr) fail("there is no test \"", shown(name), "\"");
  memory.step();
  if (const Text* text = text_in(value))
    memory.step(name == "lower" || name == "upper" ? 1 + text->bytes.size() / 8 : 0);
  const bool result = test->apply(memory, value, arguments);
  arguments.end();
  return result;
}

}  // namespace gptq::jinja
