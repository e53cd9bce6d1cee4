// The syntax tree of a template.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/jinja/value.h"

namespace gptq::jinja {

struct Expression;
struct Statement;
using ExpressionPointer = std::unique_ptr<Expression>;
using Body = std::vector<Statement>;

// An argument of a call: positional ("" as its name), named, or one that is spread ("*" and "**").
struct Argument {
  std::string name;
  ExpressionPointer value;
};

struct Expression {
  enum class Kind {
    kLiteral,        // `literal`, or `text` if it is a Text
    kName,           // `text`
    kCaptured,       // what a filter block holds
    kList,           // parts
    kTuple,          // parts
    kDict,           // parts: keys and values in turns
    kAttribute,      // parts[0].text
    kSubscript,      // parts[0][parts[1]]
    kSlice,          // parts[0][parts[1]:parts[2]:parts[3]], each of which may be null
    kCall,           // parts[0](arguments)
    kFilter,         // parts[0] | text(arguments)
    kTest,           // parts[0] is text(arguments)
    kNot,            // parts[0]
    kNegative,       // parts[0]
    kPositive,       // parts[0]
    kBinary,         // parts[0] text parts[1]: arithmetic
    kAnd,            // parts[0] and parts[1]
    kOr,             // parts[0] or parts[1]
    kConcatenation,  // parts[0] ~ parts[1] ~ ...
    kComparison,     // parts[0] signs[0] parts[1] signs[1] ...; signs: == != < <= > >= in, not in
    kConditional     // parts[1] if parts[0] else parts[2], which may be null
  };

  Kind kind;
  int line;
  int depth = 1;  // levels of expressions in one another
  std::string text;
  Value literal = None{};
  std::vector<ExpressionPointer> parts;
  std::vector<Argument> arguments;
  std::vector<std::string> signs;
};

// What is assigned to: a name, an attribute of a namespace, or several in a tuple.
struct Target {
  std::string name, attribute;
  std::vector<Target> parts;
  bool is_tuple = false;
};

// The parameters of a macro or call block, and whether its body uses the names that take what else is given.
struct Signature {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPointer> defaults;  // of each parameter; null if it has none
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

// A branch of an if; `test` is null for else.
struct Branch {
  ExpressionPointer test;
  Body body;
};

struct Statement {
  enum class Kind {
    kData,      // `text`
    kPrint,     // expressions
    kIf,        // branches
    kFor,       // targets[0] in expressions[0] if expressions[1], which may be null: body, otherwise
    kSet,       // targets[0] = expressions[0]
    kSetBlock,  // targets[0] = body, through the filters of expressions[0], which may be null
    kMacro,     // signature, body
    kCall,      // expressions[0] with the body as its caller
    kFilter,    // body through the filters of expressions[0]
    kWith,      // targets = expressions: body
    kScope,     // body
    kBreak,
    kContinue
  };

  Kind kind;
  int line;
  std::string text;
  std::vector<ExpressionPointer> expressions;
  std::vector<Target> targets;
  std::vector<Branch> branches;
  std::unique_ptr<Signature> signature;
  bool is_recursive = false;
  Body body, otherwise;
};

}  // namespace gptq::jinja
