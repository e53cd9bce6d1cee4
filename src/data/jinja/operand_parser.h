// Parses operands: primary expressions, and the attributes, calls, filters and tests behind them.
#pragma once

#include <string>
#include <vector>

#include "data/jinja/primary_parser.h"

namespace gptq::jinja {

class OperandParser : public PrimaryParser {
 public:
  using PrimaryParser::PrimaryParser;

  // `| a | b`, or `a | b` if it starts inline: of the captured text. Null if there is none.
  ExpressionPointer parse_filters(bool inline_start);

 protected:
  ExpressionPointer parse_postfix(ExpressionPointer value);
  ExpressionPointer parse_filters_and_tests(ExpressionPointer value);

 private:
  ExpressionPointer parse_subscript(ExpressionPointer value);
  ExpressionPointer parse_subscript_or_slice(ExpressionPointer value, int line);
  ExpressionPointer parse_filter(ExpressionPointer value);
  ExpressionPointer parse_test(ExpressionPointer value);
  ExpressionPointer parse_call(ExpressionPointer callee);
  std::vector<Argument> parse_arguments();
  std::string parse_dotted_name();
};

}  // namespace gptq::jinja
