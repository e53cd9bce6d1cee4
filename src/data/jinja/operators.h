// Python's arithmetic, and access to parts of values as Jinja has it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "data/jinja/value.h"

namespace gptq::jinja {

// `sign`: + - * / // % **. Throws for types that have no such operation, and for integers beyond 64 bits.
Value calculate(Memory& memory, std::string_view sign, const Value& left, const Value& right);
Value negative(const Value& value);

// value.name and value[key]: missing if there is none; throw if the value itself is missing.
Value attribute(Memory& memory, const Value& value, std::string_view name);
Value subscript(Memory& memory, const Value& value, const Value& key);
// value[start:stop:step]; null and none stand for what is left out.
Value slice(Memory& memory, const Value& value, const Value& start, const Value& stop, const Value& step);

}  // namespace gptq::jinja
