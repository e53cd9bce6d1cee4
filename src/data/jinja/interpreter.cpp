#include "data/jinja/interpreter.h"

#include <algorithm>
#include <utility>

#include "data/jinja/arguments.h"
#include "data/jinja/collections.h"
#include "data/jinja/print.h"

namespace gptq::jinja {

using Kind = Statement::Kind;

std::string Interpreter::run(const Body& body, Scope* scope) {
  std::string made;
  out_ = &made;
  run_body(body, scope);
  return made;
}

void Interpreter::put_out(const Value& value) {
  const Text text = to_text(memory_, value);
  memory_.read(text.bytes.size());
  memory_.grow(text.bytes.size());
  *out_ += text.bytes;
}

Text Interpreter::captured(const Body& body, Scope* scope) {
  std::string made;
  std::string* out = std::exchange(out_, &made);
  run_body(body, memory_.scope(scope));
  out_ = out;
  return memory_.text(std::move(made));
}

Interpreter::Flow Interpreter::run_body(const Body& body, Scope* scope) {
  for (const Statement& statement : body) {
    memory_.step();
    if (const Flow flow = run_statement(statement, scope); flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::run_statement(const Statement& statement, Scope* scope) {
  const Memory::Level level(memory_);
  evaluator_.set_line(statement.line);
  switch (statement.kind) {
    case Kind::kData:
      put_out(Text{statement.text});
      return Flow::kOn;
    case Kind::kPrint:
      for (const ExpressionPointer& printed : statement.expressions) put_out(evaluator_.evaluate(*printed, scope));
      return Flow::kOn;
    case Kind::kIf:
      return run_if(statement, scope);
    case Kind::kFor:
      return run_loop(statement, evaluator_.evaluate(*statement.expressions[0], scope), scope, 0);
    case Kind::kSet:
      assign(memory_, statement.targets[0], evaluator_.evaluate(*statement.expressions[0], scope), scope);
      return Flow::kOn;
    case Kind::kSetBlock:
      run_set_block(statement, scope);
      return Flow::kOn;
    case Kind::kMacro:
      set_variable(memory_, *scope, statement.signature->name, macro(statement, scope));
      return Flow::kOn;
    case Kind::kCall:
      run_call(statement, scope);
      return Flow::kOn;
    case Kind::kFilter:
      put_out(evaluator_.filter(*statement.expressions[0], captured(statement.body, scope), scope));
      return Flow::kOn;
    case Kind::kWith:
      return run_with(statement, scope);
    case Kind::kScope:
      return run_body(statement.body, memory_.scope(scope));
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::run_if(const Statement& statement, Scope* scope) {
  for (const Branch& branch : statement.branches)
    if (branch.test == nullptr || truth(evaluator_.evaluate(*branch.test, scope))) return run_body(branch.body, scope);
  return Flow::kOn;
}

Interpreter::Flow Interpreter::run_with(const Statement& statement, Scope* scope) {
  Scope* inner = memory_.scope(scope);
  for (size_t i = 0; i < statement.targets.size(); ++i)
    assign(memory_, statement.targets[i], evaluator_.evaluate(*statement.expressions[i], scope), inner);
  return run_body(statement.body, inner);
}

void Interpreter::run_set_block(const Statement& statement, Scope* scope) {
  Value value = captured(statement.body, scope);
  if (const ExpressionPointer& filters = statement.expressions[0]; filters != nullptr)
    value = evaluator_.filter(*filters, value, scope);
  assign(memory_, statement.targets[0], value, scope);
}

void Interpreter::run_call(const Statement& statement, Scope* scope) {
  put_out(evaluator_.call(*statement.expressions[0], scope, macro(statement, scope)));
}

std::span<const Value> Interpreter::kept_items(const Statement& statement, std::span<const Value> items, Scope* scope) {
  const ExpressionPointer& test = statement.expressions[1];
  if (test == nullptr) return items;
  std::vector<Value> kept;
  for (const Value& item : items) {
    Scope* inner = memory_.scope(scope);
    assign(memory_, statement.targets[0], item, inner);
    if (truth(evaluator_.evaluate(*test, inner))) kept.push_back(item);
  }
  return memory_.list(std::move(kept))->items;
}

Interpreter::Flow Interpreter::run_loop(const Statement& statement, const Value& iterable, Scope* scope,
                                        int64_t depth) {
  Loop* loop = memory_.loop();
  loop->depth = depth;
  loop->items = kept_items(statement, iterate(memory_, iterable), scope);
  if (statement.is_recursive)
    loop->recurse = [this, &statement, scope, depth](const Value& inner) -> Value {
      std::string made;
      std::string* out = std::exchange(out_, &made);
      run_loop(statement, inner, scope, depth + 1);
      out_ = out;
      return memory_.text(std::move(made));
    };
  bool is_complete = false;  // an iteration ran to its end; without one Jinja runs the else
  Scope* inner = memory_.scope(scope);
  for (const Value& item : loop->items) {
    if (std::exchange(scopes_held_, false)) inner = memory_.scope(scope);
    inner->variables.clear();
    set_variable(memory_, *inner, "loop", loop);
    assign(memory_, statement.targets[0], item, inner);
    const Flow flow = run_body(statement.body, inner);
    if (flow == Flow::kBreak) break;
    is_complete |= flow == Flow::kOn;
    ++loop->index;
  }
  if (!is_complete) return run_body(statement.otherwise, memory_.scope(scope));
  return Flow::kOn;
}

Callable* Interpreter::macro(const Statement& statement, Scope* scope) {
  scopes_held_ = true;
  return memory_.callable(statement.signature->name, [this, &statement, scope](Arguments& arguments) {
    return call_macro(statement, scope, arguments);
  });
}

Value Interpreter::call_macro(const Statement& statement, Scope* scope, Arguments& arguments) {
  const Memory::Level level(memory_);
  Scope* inner = memory_.scope(scope);
  bind(*statement.signature, inner, arguments);
  std::string made;
  std::string* out = std::exchange(out_, &made);
  run_body(statement.body, inner);
  out_ = out;
  return memory_.text(std::move(made));
}

void Interpreter::bind(const Signature& signature, Scope* scope, Arguments& arguments) {
  std::vector<std::optional<Value>> given;
  for (const std::string& name : signature.parameters) given.push_back(arguments.take(name));
  const bool names_caller =
      std::find(signature.parameters.begin(), signature.parameters.end(), "caller") != signature.parameters.end();
  if (signature.uses_caller && !names_caller)
    set_variable(memory_, *scope, "caller", arguments.take_named("caller").value_or(Missing{"caller"}));
  if (signature.uses_kwargs) {
    Dict* named = memory_.dict();
    for (const auto& [name, value] : arguments.named) insert(memory_, *named, Text{name}, value);
    arguments.named.clear();
    set_variable(memory_, *scope, "kwargs", named);
  }
  if (signature.uses_varargs)
    set_variable(memory_, *scope, "varargs", memory_.list(arguments.take_rest(), List::Shape::kTuple));
  arguments.end();
  for (size_t i = 0; i < given.size(); ++i) {
    Value value = given[i].value_or(Missing{signature.parameters[i]});
    if (!given[i] && signature.defaults[i] != nullptr) value = evaluator_.evaluate(*signature.defaults[i], scope);
    set_variable(memory_, *scope, signature.parameters[i], value);
  }
}

}  // namespace gptq::jinja
