#include "data/jinja/collections.h"

#include <algorithm>
#include <utility>

#include "data/jinja/memory.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

constexpr size_t kIndexed = 8;  // entries from which on a dict has an index

bool is_sequence(const List& list) { return list.shape == List::Shape::kList || list.shape == List::Shape::kTuple; }

bool equal_lists(Memory& memory, const List& left, const List& right) {
  if (&left == &right) return true;
  if (left.shape != right.shape || left.shape == List::Shape::kIterator || left.items.size() != right.items.size())
    return false;
  for (size_t i = 0; i < left.items.size(); ++i)
    if (!equal(memory, left.items[i], right.items[i])) return false;
  return true;
}

bool equal_dicts(Memory& memory, const Dict& left, const Dict& right) {
  if (left.entries.size() != right.entries.size()) return false;
  for (const auto& [key, value] : left.entries) {
    const Value* other = find(memory, right, key);
    if (other == nullptr || !equal(memory, value, *other)) return false;
  }
  return true;
}

// The entry of a key, or the number of entries.
size_t place_of(Memory& memory, const Dict& dict, const Value& key) {
  const Text* text = text_in(key);
  if (text != nullptr && dict.entries.size() >= kIndexed) {
    memory.step();
    const auto found = dict.index.find(text->bytes);
    return found == dict.index.end() ? dict.entries.size() : found->second;
  }
  size_t place = 0;
  while (place < dict.entries.size() && !equal(memory, dict.entries[place].first, key)) ++place;
  return place;
}

bool is_hashable(const Value& value) {
  if (dict_in(value) != nullptr) return false;
  const List* list = list_in(value);
  return list == nullptr || list->shape == List::Shape::kTuple;
}

}  // namespace

bool equal(Memory& memory, const Value& left, const Value& right) {
  const Memory::Level level(memory);
  memory.step();
  if (const auto a = whole_in(left), b = whole_in(right); a && b) return *a == *b;
  if (const auto a = real_in(left), b = real_in(right); a && b) return *a == *b;
  if (left.index() != right.index()) return false;
  if (const Text* text = text_in(left)) {
    memory.read(text->bytes.size());
    return text->bytes == text_in(right)->bytes;
  }
  if (const List* list = list_in(left)) return equal_lists(memory, *list, *list_in(right));
  if (const Dict* dict = dict_in(left)) return equal_dicts(memory, *dict, *dict_in(right));
  if (is_missing(left) || is_none(left)) return true;
  if (Namespace* const* name_space = std::get_if<Namespace*>(&left)) return *name_space == std::get<Namespace*>(right);
  if (Loop* const* loop = std::get_if<Loop*>(&left)) return *loop == std::get<Loop*>(right);
  return std::get<Callable*>(left) == std::get<Callable*>(right);
}

bool less(Memory& memory, const Value& left, const Value& right) {
  const Memory::Level level(memory);
  memory.step();
  if (const auto a = whole_in(left), b = whole_in(right); a && b) return *a < *b;
  if (const auto a = real_in(left), b = real_in(right); a && b) return *a < *b;
  if (const Text* a = text_in(left), *b = text_in(right); a != nullptr && b != nullptr) {
    memory.read(std::min(a->bytes.size(), b->bytes.size()));
    return a->bytes < b->bytes;  // the order of UTF-8 is that of code points
  }
  if (const List* a = list_in(left), *b = list_in(right);
      a != nullptr && b != nullptr && is_sequence(*a) && a->shape == b->shape) {
    for (size_t i = 0; i < a->items.size() && i < b->items.size(); ++i)
      if (!equal(memory, a->items[i], b->items[i])) return less(memory, a->items[i], b->items[i]);
    return a->items.size() < b->items.size();
  }
  for (const Value* side : {&left, &right})
    if (const Missing* missing = std::get_if<Missing>(side)) fail_missing(*missing);
  fail("a ", type_of(left), " and a ", type_of(right), " have no order");
}

bool contains(Memory& memory, const Value& container, const Value& item) {
  if (const Text* text = text_in(container)) {
    const Text* part = text_in(item);
    if (part == nullptr) fail("a ", type_of(item), " was searched for in a str");
    memory.read(text->bytes.size());
    return text->bytes.find(part->bytes) != std::string_view::npos;
  }
  if (const Dict* dict = dict_in(container)) {
    if (!is_hashable(item)) fail("a ", type_of(item), " cannot be a key");
    return find(memory, *dict, item) != nullptr;
  }
  for (const Value& other : iterate(memory, container))
    if (equal(memory, other, item)) return true;
  return false;
}

std::span<const Value> iterate(Memory& memory, const Value& value) {
  if (List* list = list_in(value)) {
    if (list->shape != List::Shape::kIterator) return list->items;
    const size_t start = std::exchange(list->next, list->items.size());
    return std::span<const Value>(list->items).subspan(start);
  }
  std::vector<Value> items;
  if (const Dict* dict = dict_in(value)) {
    memory.require(dict->entries.size() * sizeof(Value));
    for (const auto& [key, kept] : dict->entries) items.push_back(key);
  } else if (const Text* text = text_in(value)) {
    memory.require(text->bytes.size() * sizeof(Value) / 4);
    const auto characters = static_cast<size_t>(length(text->bytes));
    memory.require(characters * sizeof(Value));
    items.reserve(characters);
    for (size_t at = 0; at < text->bytes.size();) {
      const size_t start = at;
      next_character(text->bytes, at);
      items.emplace_back(Text{text->bytes.substr(start, at - start)});
    }
  } else if (Loop* const* loop = std::get_if<Loop*>(&value)) {
    refuse("a loop over the variable `loop` (index ", (*loop)->index, ")");
  } else if (!is_missing(value)) {
    fail("a ", type_of(value), " cannot be looped over");
  }
  return memory.list(std::move(items))->items;
}

const Value* find(Memory& memory, const Dict& dict, const Value& key) {
  const size_t place = place_of(memory, dict, key);
  return place == dict.entries.size() ? nullptr : &dict.entries[place].second;
}

void insert(Memory& memory, Dict& dict, const Value& key, const Value& value) {
  if (!is_hashable(key)) fail("a ", type_of(key), " cannot be a key");
  const size_t place = place_of(memory, dict, key);
  if (place < dict.entries.size()) {
    dict.entries[place].second = value;
    return;
  }
  memory.grow(2 * sizeof(Value) + (text_in(key) != nullptr ? 64 : 0));
  dict.entries.emplace_back(key, value);
  if (dict.entries.size() < kIndexed) return;
  for (size_t i = place + 1 == kIndexed ? 0 : place; i <= place; ++i)
    if (const Text* text = text_in(dict.entries[i].first)) dict.index.emplace(text->bytes, i);
}

}  // namespace gptq::jinja
