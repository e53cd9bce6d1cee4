// Parses operands: literals, names, what is in brackets, and the attributes, calls, filters and tests behind them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/jinja/syntax.h"
#include "data/jinja/token_stream.h"

namespace gptq::jinja {

class OperandParser {
 public:
  explicit OperandParser(TokenStream& tokens) : tokens_(tokens) {}
  virtual ~OperandParser() = default;

  // A whole expression; with_conditional: which may be an `a if b else c`.
  virtual ExpressionPointer parse(bool with_conditional = true) = 0;
  // One expression, or a tuple without parentheses, which the end of the tag or the name `end` ends.
  ExpressionPointer parse_tuple(bool with_conditional = true, std::string_view end = "", bool in_parentheses = false);
  // `| a | b`, or `a | b` if it starts inline: of the captured text. Null if there is none.
  ExpressionPointer parse_filters(bool inline_start);

  // The names caller, varargs and kwargs that were read.
  bool caller = false, varargs = false, kwargs = false;

 protected:
  // Holds one level of recursion. Throws if there are too many.
  class Level {
   public:
    explicit Level(OperandParser& parser);
    ~Level() { --parser_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    OperandParser& parser_;
  };

  ExpressionPointer make(Expression::Kind kind, int line, std::string text = "") const;
  // Of one or two parts.
  ExpressionPointer joined(Expression::Kind kind, int line, ExpressionPointer left, ExpressionPointer right,
                           std::string text = "") const;
  // Computes the depth of an expression from its parts. Throws if it is too large.
  void check_depth(Expression& expression) const;

  ExpressionPointer parse_primary();
  ExpressionPointer parse_postfix(ExpressionPointer value);
  ExpressionPointer parse_filters_and_tests(ExpressionPointer value);

  TokenStream& tokens_;

 private:
  ExpressionPointer parse_name();
  ExpressionPointer parse_list();
  ExpressionPointer parse_dict();
  ExpressionPointer parse_subscript(ExpressionPointer value);
  ExpressionPointer parse_subscript_or_slice(ExpressionPointer value, int line);
  ExpressionPointer parse_filter(ExpressionPointer value);
  ExpressionPointer parse_test(ExpressionPointer value);
  ExpressionPointer parse_call(ExpressionPointer callee);
  std::vector<Argument> parse_arguments();
  std::string parse_dotted_name();

  int depth_ = 0;
};

}  // namespace gptq::jinja
