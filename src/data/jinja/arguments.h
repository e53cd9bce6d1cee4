// The arguments of a call of a function, a method, a filter or a test.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "data/jinja/value.h"

namespace gptq::jinja {

class Arguments {
 public:
  explicit Arguments(std::string_view function) : function_(function) {}

  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;

  std::string_view function() const { return function_; }

  // Parameters are taken in their order: the next positional argument, or else the one of that name.
  std::optional<Value> take(std::string_view name);
  std::optional<Value> take_named(std::string_view name);
  std::vector<Value> take_rest();
  // Throws if an argument was not taken.
  void end() const;

  // take(), of a type. `required()` and the forms without a default throw if it is missing.
  Value required(std::string_view name);
  std::string_view text(std::string_view name);
  std::string_view text(std::string_view name, std::string_view or_else);
  int64_t integer(std::string_view name);
  int64_t integer(std::string_view name, int64_t or_else);
  bool flag(std::string_view name, bool or_else);

 private:
  std::string_view text_of(const Value& value, std::string_view name) const;
  int64_t integer_of(const Value& value, std::string_view name) const;

  std::string_view function_;
  size_t next_ = 0;
};

}  // namespace gptq::jinja
