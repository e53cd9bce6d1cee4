// Computes the values of expressions.
#pragma once

#include <optional>
#include <string_view>

#include "data/jinja/memory.h"
#include "data/jinja/syntax.h"

namespace gptq::jinja {

class Evaluator {
 public:
  explicit Evaluator(Memory& memory) : memory_(memory) {}

  Value evaluate(const Expression& expression, Scope* scope);
  // A call, to which the caller of a call block is given too.
  Value call(const Expression& expression, Scope* scope, std::optional<Value> caller = std::nullopt);
  // An expression that has filters of a captured text.
  Value filter(const Expression& filters, const Value& captured, Scope* scope);

  void set_line(int line) { line_ = line; }
  int line() const { return line_; }  // of what was computed last, for errors

 private:
  Value container(const Expression& expression, Scope* scope);
  Value slice_of(const Expression& expression, Scope* scope);
  Value comparison(const Expression& expression, Scope* scope);
  Value concatenation(const Expression& expression, Scope* scope);
  Value conditional(const Expression& expression, Scope* scope);
  Value applied(const Expression& expression, Scope* scope);
  void add_arguments(const Expression& expression, Scope* scope, Arguments& arguments);

  Memory& memory_;
  Value captured_;
  int line_ = 1;
};

void set_variable(Memory& memory, Scope& scope, std::string_view name, const Value& value);
// To a name, several names, or the attribute of a namespace.
void assign(Memory& memory, const Target& target, const Value& value, Scope* scope);

}  // namespace gptq::jinja
