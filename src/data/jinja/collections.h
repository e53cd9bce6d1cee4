// What takes steps that Memory counts: comparing values, and looking into containers.
#pragma once

#include <span>

#include "data/jinja/value.h"

namespace gptq::jinja {

bool equal(Memory& memory, const Value& left, const Value& right);
// left < right; throws for types that have no order.
bool less(Memory& memory, const Value& left, const Value& right);
// `item in container`.
bool contains(Memory& memory, const Value& container, const Value& item);

// The items that a loop over a value has: of a list, the keys of a dict, the characters of a text, none of a missing
// value. Uses up an iterator.
std::span<const Value> iterate(Memory& memory, const Value& value);
// Null if there is none.
const Value* find(Memory& memory, const Dict& dict, const Value& key);
void insert(Memory& memory, Dict& dict, const Value& key, const Value& value);

}  // namespace gptq::jinja
