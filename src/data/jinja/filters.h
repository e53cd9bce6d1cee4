// Jinja's filters and tests.
#pragma once

#include <string_view>

#include "data/jinja/arguments.h"
#include "data/jinja/value.h"

namespace gptq::jinja {

using Filter = Value (*)(Memory& memory, const Value& value, Arguments& arguments);
using Test = bool (*)(Memory& memory, const Value& value, Arguments& arguments);

struct NamedFilter {
  std::string_view name;
  Filter apply;
};

// The filters of a number or a text, and those of what has items.
std::span<const NamedFilter> text_filters();
std::span<const NamedFilter> list_filters();

// value | name(arguments) and `value is name(arguments)`. Throw InputError for a name that Jinja does not have,
// UnsupportedError for one that is missing here.
Value apply_filter(Memory& memory, std::string_view name, const Value& value, Arguments& arguments);
bool apply_test(Memory& memory, std::string_view name, const Value& value, Arguments& arguments);

bool has_filter(std::string_view name);
bool has_test(std::string_view name);

}  // namespace gptq::jinja
