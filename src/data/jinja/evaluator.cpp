#include "data/jinja/evaluator.h"

#include <algorithm>
#include <utility>

#include "data/jinja/arguments.h"
#include "data/jinja/collections.h"
#include "data/jinja/filters.h"
#include "data/jinja/operators.h"
#include "data/jinja/print.h"
#include "data/jinja/text.h"

namespace gptq::jinja {

using Kind = Expression::Kind;

namespace {

Value literal(const Expression& expression) {
  return text_in(expression.literal) != nullptr ? Value(Text{expression.text}) : expression.literal;
}

Value lookup(Memory& memory, const std::string& sought, Scope* scope) {
  for (; scope != nullptr; scope = scope->parent) {
    memory.step(scope->variables.size() / 8);
    for (const auto& [name, value] : scope->variables)
      if (name == sought) return value;
  }
  return Missing{sought};
}

bool compare(Memory& memory, std::string_view sign, const Value& left, const Value& right) {
  if (sign == "==") return equal(memory, left, right);
  if (sign == "!=") return !equal(memory, left, right);
  if (sign == "<") return less(memory, left, right);
  if (sign == ">") return less(memory, right, left);
  if (sign == "<=") return less(memory, left, right) || equal(memory, left, right);
  if (sign == ">=") return less(memory, right, left) || equal(memory, left, right);
  return contains(memory, right, left) == (sign == "in");
}

void refuse_equal_names(const Arguments& arguments) {
  std::vector<std::string_view> names;
  for (const auto& [name, value] : arguments.named) names.push_back(name);
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    fail("the argument \"", shown(*twice), "\" is given twice");
}

}  // namespace

void set_variable(Memory& memory, Scope& scope, std::string_view name, const Value& value) {
  memory.step(1 + scope.variables.size() / 8);
  for (auto& [known, held] : scope.variables) {
    if (known != name) continue;
    held = value;
    return;
  }
  memory.grow(2 * sizeof(scope.variables[0]));
  scope.variables.emplace_back(name, value);
}

void assign(Memory& memory, const Target& target, const Value& value, Scope* scope) {
  if (target.is_tuple) {
    const std::span<const Value> items = iterate(memory, value);
    if (items.size() != target.parts.size())
      fail(items.size(), " values cannot be assigned to ", target.parts.size(), " names");
    for (size_t i = 0; i < items.size(); ++i) assign(memory, target.parts[i], items[i], scope);
    return;
  }
  if (target.attribute.empty()) return set_variable(memory, *scope, target.name, value);
  const Value held = lookup(memory, target.name, scope);
  Namespace* const* name_space = std::get_if<Namespace*>(&held);
  if (name_space == nullptr)
    fail("\"", shown(target.name), "\" is a ", type_of(held), ", and only a namespace has attributes to assign to");
  if (target.attribute.starts_with('_')) fail("a namespace has no attribute that starts with an underscore");
  memory.step();
  const auto [place, is_new] = (*name_space)->attributes.insert_or_assign(target.attribute, value);
  if (is_new) memory.grow(sizeof(*place) + 64);
}

Value Evaluator::evaluate(const Expression& expression, Scope* scope) {
  const Memory::Level level(memory_);
  memory_.step();
  line_ = expression.line;
  const auto part = [&](size_t i) { return evaluate(*expression.parts[i], scope); };
  switch (expression.kind) {
    case Kind::kLiteral:
      return literal(expression);
    case Kind::kName:
      return lookup(memory_, expression.text, scope);
    case Kind::kCaptured:
      return captured_;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
      return container(expression, scope);
    case Kind::kAttribute:
      return attribute(memory_, part(0), expression.text);
    case Kind::kSubscript: {
      const Value value = part(0);
      return subscript(memory_, value, part(1));
    }
    case Kind::kSlice:
      return slice_of(expression, scope);
    case Kind::kCall:
      return call(expression, scope);
    case Kind::kFilter:
    case Kind::kTest:
      return applied(expression, scope);
    case Kind::kNot:
      return !truth(part(0));
    case Kind::kNegative:
      return negative(part(0));
    case Kind::kPositive:
      return calculate(memory_, "+", int64_t{0}, part(0));
    case Kind::kBinary: {
      const Value left = part(0), right = part(1);
      line_ = expression.line;
      return calculate(memory_, expression.text, left, right);
    }
    case Kind::kAnd:
    case Kind::kOr: {
      Value left = part(0);
      return truth(left) == (expression.kind == Kind::kAnd) ? part(1) : left;
    }
    case Kind::kConcatenation:
      return concatenation(expression, scope);
    case Kind::kComparison:
      return comparison(expression, scope);
    case Kind::kConditional:
      return conditional(expression, scope);
  }
  return Missing{};
}

Value Evaluator::container(const Expression& expression, Scope* scope) {
  if (expression.kind == Kind::kDict) {
    Dict* dict = memory_.dict();
    for (size_t i = 0; i < expression.parts.size(); i += 2) {
      const Value key = evaluate(*expression.parts[i], scope);
      insert(memory_, *dict, key, evaluate(*expression.parts[i + 1], scope));
    }
    return dict;
  }
  std::vector<Value> items;
  items.reserve(expression.parts.size());
  for (const ExpressionPointer& part : expression.parts) items.push_back(evaluate(*part, scope));
  return memory_.list(std::move(items), expression.kind == Kind::kTuple ? List::Shape::kTuple : List::Shape::kList);
}

Value Evaluator::slice_of(const Expression& expression, Scope* scope) {
  const Value value = evaluate(*expression.parts[0], scope);
  const auto bound = [&](size_t i) -> Value {
    return expression.parts[i] == nullptr ? Value(None{}) : evaluate(*expression.parts[i], scope);
  };
  const Value start = bound(1), stop = bound(2);
  return slice(memory_, value, start, stop, bound(3));
}

Value Evaluator::comparison(const Expression& expression, Scope* scope) {
  Value left = evaluate(*expression.parts[0], scope);
  for (size_t i = 0; i < expression.signs.size(); ++i) {
    const Value right = evaluate(*expression.parts[i + 1], scope);
    line_ = expression.line;
    if (!compare(memory_, expression.signs[i], left, right)) return false;
    left = right;
  }
  return true;
}

Value Evaluator::concatenation(const Expression& expression, Scope* scope) {
  std::string made;
  for (const ExpressionPointer& part : expression.parts) {
    made += to_text(memory_, evaluate(*part, scope)).bytes;
    memory_.require(made.size());
  }
  return memory_.text(std::move(made));
}

Value Evaluator::conditional(const Expression& expression, Scope* scope) {
  if (truth(evaluate(*expression.parts[0], scope))) return evaluate(*expression.parts[1], scope);
  if (expression.parts[2] == nullptr) return Missing{"an if without else"};
  return evaluate(*expression.parts[2], scope);
}

Value Evaluator::applied(const Expression& expression, Scope* scope) {
  const Value value = evaluate(*expression.parts[0], scope);
  Arguments arguments(expression.text);
  add_arguments(expression, scope, arguments);
  line_ = expression.line;
  if (expression.kind == Kind::kFilter) return apply_filter(memory_, expression.text, value, arguments);
  return apply_test(memory_, expression.text, value, arguments);
}

Value Evaluator::filter(const Expression& filters, const Value& captured, Scope* scope) {
  const Value before = std::exchange(captured_, captured);
  Value result = evaluate(filters, scope);
  captured_ = before;
  return result;
}

void Evaluator::add_arguments(const Expression& expression, Scope* scope, Arguments& arguments) {
  for (const Argument& argument : expression.arguments) {
    const Value value = evaluate(*argument.value, scope);
    if (argument.name.empty()) {
      arguments.positional.push_back(value);
    } else if (argument.name == "*") {
      for (const Value& item : iterate(memory_, value)) {
        memory_.grow(sizeof(Value));
        arguments.positional.push_back(item);
      }
    } else if (argument.name == "**") {
      const Dict* dict = dict_in(value);
      if (dict == nullptr) fail("** of a ", type_of(value), " where a dict was expected");
      for (const auto& [key, item] : dict->entries) {
        if (text_in(key) == nullptr) fail("an argument is named by a ", type_of(key));
        memory_.grow(sizeof(Value));
        arguments.named.emplace_back(text_in(key)->bytes, item);
      }
    } else {
      arguments.named.emplace_back(argument.name, value);
    }
  }
  refuse_equal_names(arguments);
}

Value Evaluator::call(const Expression& expression, Scope* scope, std::optional<Value> caller) {
  const Value callee = evaluate(*expression.parts[0], scope);
  if (Loop* const* loop = std::get_if<Loop*>(&callee)) {
    if ((*loop)->recurse == nullptr) fail("loop() is called in a loop that is not recursive");
    Arguments arguments("loop");
    add_arguments(expression, scope, arguments);
    const Value items = arguments.required("iterable");
    arguments.end();
    return (*loop)->recurse(items);
  }
  Callable* const* function = std::get_if<Callable*>(&callee);
  if (const Missing* missing = std::get_if<Missing>(&callee)) fail_missing(*missing);
  if (function == nullptr) fail("a ", type_of(callee), " cannot be called");
  Arguments arguments((*function)->name);
  add_arguments(expression, scope, arguments);
  if (caller) arguments.named.emplace_back("caller", *caller);
  line_ = expression.line;
  return (*function)->call(arguments);
}

}  // namespace gptq::jinja
