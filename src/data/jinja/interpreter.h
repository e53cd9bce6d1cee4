// Runs the statements of a template.
#pragma once

#include <string>

#include "data/jinja/evaluator.h"
#include "data/jinja/memory.h"
#include "data/jinja/syntax.h"

namespace gptq::jinja {

class Interpreter {
 public:
  explicit Interpreter(Memory& memory) : memory_(memory), evaluator_(memory) {}

  // The text that a template makes with the variables of a scope.
  std::string run(const Body& body, Scope* scope);
  int line() const { return evaluator_.line(); }  // where it is, for errors

 private:
  enum class Flow { kOn, kBreak, kContinue };

  Flow run_body(const Body& body, Scope* scope);
  Flow run_statement(const Statement& statement, Scope* scope);
  Flow run_if(const Statement& statement, Scope* scope);
  Flow run_with(const Statement& statement, Scope* scope);
  Flow run_loop(const Statement& statement, const Value& iterable, Scope* scope, int64_t depth);
  std::span<const Value> kept_items(const Statement& statement, std::span<const Value> items, Scope* scope);
  void run_set_block(const Statement& statement, Scope* scope);
  void run_call(const Statement& statement, Scope* scope);

  // What a body puts out, which is not put out here.
  Text captured(const Body& body, Scope* scope);
  Callable* macro(const Statement& statement, Scope* scope);
  Value call_macro(const Statement& statement, Scope* scope, Arguments& arguments);
  void bind(const Signature& signature, Scope* scope, Arguments& arguments);
  void put_out(const Value& value);

  Memory& memory_;
  Evaluator evaluator_;
  std::string* out_ = nullptr;
  bool scopes_held_ = false;  // by a macro, which sees their variables when it is called: they are not used again
};

}  // namespace gptq::jinja
