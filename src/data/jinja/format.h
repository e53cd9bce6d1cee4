// Python's two ways to put values into a pattern.
#pragma once

#include <string>
#include <string_view>

#include "data/jinja/arguments.h"
#include "data/jinja/value.h"

namespace gptq::jinja {

// pattern % values: a tuple has one for each place, a dict those of %(names).
std::string format_percent(Memory& memory, const Text& pattern, const Value& values);
// pattern.format(...).
std::string format_braces(Memory& memory, std::string_view pattern, const Arguments& arguments);

}  // namespace gptq::jinja
