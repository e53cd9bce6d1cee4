// The values of a template, as Python has them. Texts are views and containers pointers: Memory owns what they refer
// to, and frees it when the rendering ends.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace gptq::jinja {

class Arguments;
class Memory;
struct List;
struct Dict;
struct Namespace;
struct Loop;
struct Callable;

// Jinja's Undefined: false and empty, but an error in most operations. `owner`: what has no such attribute, or null.
struct Missing {
  std::string_view name;
  const char* owner = nullptr;
};
struct None {};
// UTF-8. `markup`: marked as safe HTML, which escapes what is added to it.
struct Text {
  std::string_view bytes;
  bool markup = false;
};

using Value = std::variant<Missing, None, bool, int64_t, double, Text, List*, Dict*, Namespace*, Loop*, Callable*>;

// Whatever has items in an order. An iterator gives each once and has no length; views are those of a dict.
struct List {
  enum class Shape { kList, kTuple, kRange, kIterator, kKeys, kValues, kItems };
  std::vector<Value> items;
  Shape shape = Shape::kList;
  size_t next = 0;        // of an iterator: how many it has given
  bool is_group = false;  // a tuple of groupby(), whose items have the names `grouper` and `list` too
};

// Keeps the order of insertion. Templates cannot change one.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  std::unordered_map<std::string_view, size_t> index;  // of keys that are texts
};

struct Namespace {
  std::map<std::string, Value, std::less<>> attributes;
};

// The variable `loop`.
struct Loop {
  std::span<const Value> items;
  int64_t index = 0, depth = 0;  // both from 0
  bool has_changed_value = false;
  std::vector<Value> changed_value;
  std::function<Value(const Value&)> recurse;  // of a recursive loop
};

struct Callable {
  std::string_view name;
  std::function<Value(Arguments&)> call;
};

// Errors of a template; Template adds the file and the line.
template <typename... Args>
[[noreturn]] void fail(const Args&... args) {
  throw InputError(cat(args...));
}
template <typename... Args>
[[noreturn]] void refuse(const Args&... args) {
  throw UnsupportedError(cat(args..., " is not supported"));
}
[[noreturn]] void fail_missing(const Missing& missing);

inline bool is_missing(const Value& value) { return std::holds_alternative<Missing>(value); }
inline bool is_none(const Value& value) { return std::holds_alternative<None>(value); }
inline const Text* text_in(const Value& value) { return std::get_if<Text>(&value); }
List* list_in(const Value& value);                    // of any shape, or null
Dict* dict_in(const Value& value);                    // or null
std::optional<int64_t> whole_in(const Value& value);  // a bool or an integer
std::optional<double> real_in(const Value& value);    // those, or a float

// "'str' object": for messages. "str": the name of the type.
const char* type_of(const Value& value);

bool truth(const Value& value);
// len(); throws for values without one.
int64_t length_of(const Value& value);

}  // namespace gptq::jinja
