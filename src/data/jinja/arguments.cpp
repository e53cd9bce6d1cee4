#include "data/jinja/arguments.h"

#include <algorithm>

#include "data/jinja/text.h"

namespace gptq::jinja {

std::optional<Value> Arguments::take(std::string_view name) {
  if (next_ < positional.size()) return positional[next_++];
  return take_named(name);
}

std::optional<Value> Arguments::take_named(std::string_view name) {
  const auto found = std::find_if(named.begin(), named.end(), [&](const auto& pair) { return pair.first == name; });
  if (found == named.end()) return std::nullopt;
  const Value value = found->second;
  named.erase(found);
  return value;
}

std::vector<Value> Arguments::take_rest() {
  std::vector<Value> rest(positional.begin() + static_cast<int64_t>(next_), positional.end());
  next_ = positional.size();
  return rest;
}

void Arguments::end() const {
  if (next_ < positional.size()) fail(function_, "() has ", positional.size(), " arguments, and takes ", next_);
  if (!named.empty()) fail(function_, "() takes no argument \"", shown(named[0].first), "\"");
}

Value Arguments::required(std::string_view name) {
  const auto value = take(name);
  if (!value) fail(function_, "() lacks its argument \"", name, "\"");
  return *value;
}

std::string_view Arguments::text_of(const Value& value, std::string_view name) const {
  if (const Text* text = text_in(value)) return text->bytes;
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  fail("the argument \"", name, "\" of ", function_, "() is a ", type_of(value), " where a str was expected");
}

int64_t Arguments::integer_of(const Value& value, std::string_view name) const {
  if (const int64_t* integer = std::get_if<int64_t>(&value)) return *integer;
  if (const bool* truth = std::get_if<bool>(&value)) return *truth ? 1 : 0;
  if (const Missing* missing = std::get_if<Missing>(&value)) fail_missing(*missing);
  fail("the argument \"", name, "\" of ", function_, "() is a ", type_of(value), " where an int was expected");
}

std::string_view Arguments::text(std::string_view name) { return text_of(required(name), name); }

std::string_view Arguments::text(std::string_view name, std::string_view or_else) {
  const auto value = take(name);
  return value ? text_of(*value, name) : or_else;
}

int64_t Arguments::integer(std::string_view name) { return integer_of(required(name), name); }

int64_t Arguments::integer(std::string_view name, int64_t or_else) {
  const auto value = take(name);
  return value ? integer_of(*value, name) : or_else;
}

bool Arguments::flag(std::string_view name, bool or_else) {
  const auto value = take(name);
  return value ? truth(*value) : or_else;
}

}  // namespace gptq::jinja
