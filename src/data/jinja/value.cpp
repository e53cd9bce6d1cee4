#include "data/jinja/value.h"

#include "data/jinja/text.h"

namespace gptq::jinja {

void fail_missing(const Missing& missing) {
  if (missing.owner == nullptr) fail("\"", shown(missing.name), "\" is undefined");
  fail(missing.owner, " has no attribute \"", shown(missing.name), "\"");
}

List* list_in(const Value& value) {
  List* const* list = std::get_if<List*>(&value);
  return list == nullptr ? nullptr : *list;
}

Dict* dict_in(const Value& value) {
  Dict* const* dict = std::get_if<Dict*>(&value);
  return dict == nullptr ? nullptr : *dict;
}

const char* type_of(const Value& value) {
  constexpr const char* kNames[] = {"Undefined", "NoneType", "bool",      "int",  "float",   "str",
                                    "list",      "dict",     "Namespace", "loop", "function"};
  constexpr const char* kShapes[] = {"list", "tuple", "range", "generator", "dict_keys", "dict_values", "dict_items"};
  if (const List* list = list_in(value)) return kShapes[static_cast<size_t>(list->shape)];
  return kNames[value.index()];
}

std::optional<int64_t> whole_in(const Value& value) {
  if (const bool* truth = std::get_if<bool>(&value)) return *truth ? 1 : 0;
  if (const int64_t* integer = std::get_if<int64_t>(&value)) return *integer;
  return std::nullopt;
}

std::optional<double> real_in(const Value& value) {
  if (const bool* truth = std::get_if<bool>(&value)) return *truth ? 1 : 0;
  if (const int64_t* integer = std::get_if<int64_t>(&value)) return static_cast<double>(*integer);
  if (const double* number = std::get_if<double>(&value)) return *number;
  return std::nullopt;
}

bool truth(const Value& value) {
  if (const bool* truth = std::get_if<bool>(&value)) return *truth;
  if (const auto number = real_in(value)) return *number != 0;
  if (const Text* text = text_in(value)) return !text->bytes.empty();
  if (const List* list = list_in(value)) return list->shape == List::Shape::kIterator || !list->items.empty();
  if (const Dict* dict = dict_in(value)) return !dict->entries.empty();
  return !is_missing(value) && !is_none(value);
}

int64_t length_of(const Value& value) {
  if (const Text* text = text_in(value)) return length(text->bytes);
  if (const Dict* dict = dict_in(value)) return static_cast<int64_t>(dict->entries.size());
  if (const List* list = list_in(value); list != nullptr && list->shape != List::Shape::kIterator)
    return static_cast<int64_t>(list->items.size());
  if (Loop* const* loop = std::get_if<Loop*>(&value)) return static_cast<int64_t>((*loop)->items.size());
  if (is_missing(value)) return 0;
  fail("a ", type_of(value), " has no length");
}

}  // namespace gptq::jinja
