// Parses expressions, with Jinja's precedence: if, or, and, not, comparisons, + and -, ~, * and /, **, signs.
#pragma once

#include "data/jinja/operand_parser.h"

namespace gptq::jinja {

class ExpressionParser final : public OperandParser {
 public:
  using OperandParser::OperandParser;
  ExpressionPointer parse(bool with_conditional = true) override;

 private:
  ExpressionPointer parse_conditional();
  ExpressionPointer parse_or();
  ExpressionPointer parse_and();
  ExpressionPointer parse_not();
  ExpressionPointer parse_comparison();
  ExpressionPointer parse_sum();
  ExpressionPointer parse_concatenation();
  ExpressionPointer parse_product();
  ExpressionPointer parse_power();
  ExpressionPointer parse_unary(bool with_filters = true);
};

}  // namespace gptq::jinja
