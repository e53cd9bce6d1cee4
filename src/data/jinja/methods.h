// The methods of Python's types that templates may call.
#pragma once

#include <string_view>

#include "data/jinja/value.h"

namespace gptq::jinja {

// A text's method of that name; null if it has none. Throws UnsupportedError for those of Python that are not here.
Callable* text_method(Memory& memory, const Text& self, std::string_view name);
// Those of lists, tuples, ranges, views and dicts that change nothing.
Callable* list_method(Memory& memory, List* self, std::string_view name);
Callable* dict_method(Memory& memory, Dict* self, std::string_view name);

// The views of a dict: its keys, values, or (key, value) pairs.
List* view_of(Memory& memory, const Dict& dict, List::Shape shape);

// The separator between texts: str.join().
Text join(Memory& memory, std::string_view separator, std::span<const Value> texts);

}  // namespace gptq::jinja
