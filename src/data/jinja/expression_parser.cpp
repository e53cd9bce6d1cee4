#include "data/jinja/expression_parser.h"

#include "base/error.h"
#include "data/jinja/text.h"

namespace gptq::jinja {

using Kind = Expression::Kind;

ExpressionPointer ExpressionParser::parse(bool with_conditional) {
  const Level level(*this);
  return with_conditional ? parse_conditional() : parse_or();
}

ExpressionPointer ExpressionParser::parse_conditional() {
  ExpressionPointer value = parse_or();
  while (tokens_.is_name("if")) {
    ExpressionPointer made = make(Kind::kConditional, tokens_.next().line);
    made->parts.push_back(parse_or());
    made->parts.push_back(std::move(value));
    made->parts.push_back(tokens_.skip_name("else") ? parse() : nullptr);
    check_depth(*made);
    value = std::move(made);
  }
  return value;
}

ExpressionPointer ExpressionParser::parse_or() {
  ExpressionPointer left = parse_and();
  while (tokens_.is_name("or")) {
    const int line = tokens_.next().line;
    left = joined(Kind::kOr, line, std::move(left), parse_and());
  }
  return left;
}

ExpressionPointer ExpressionParser::parse_and() {
  ExpressionPointer left = parse_not();
  while (tokens_.is_name("and")) {
    const int line = tokens_.next().line;
    left = joined(Kind::kAnd, line, std::move(left), parse_not());
  }
  return left;
}

ExpressionPointer ExpressionParser::parse_not() {
  if (!tokens_.is_name("not")) return parse_comparison();
  const Level level(*this);
  const int line = tokens_.next().line;
  return joined(Kind::kNot, line, parse_not(), nullptr);
}

ExpressionPointer ExpressionParser::parse_comparison() {
  ExpressionPointer first = parse_sum(), made;
  while (true) {
    std::string sign;
    const int line = tokens_.current().line;
    const Token& token = tokens_.current();
    const bool is_sign =
        token.kind == Token::Kind::kSign && (token.text == "==" || token.text == "!=" || token.text == "<" ||
                                             token.text == "<=" || token.text == ">" || token.text == ">=");
    if (is_sign || tokens_.is_name("in")) {
      sign = tokens_.next().text;
    } else if (tokens_.is_name("not") && tokens_.following().kind == Token::Kind::kName &&
               tokens_.following().text == "in") {
      tokens_.next(), tokens_.next();
      sign = "not in";
    } else {
      break;
    }
    if (made == nullptr) made = joined(Kind::kComparison, line, std::move(first), nullptr);
    made->signs.push_back(sign);
    made->parts.push_back(parse_sum());
  }
  if (made == nullptr) return first;
  check_depth(*made);
  return made;
}

ExpressionPointer ExpressionParser::parse_sum() {
  ExpressionPointer left = parse_concatenation();
  while (tokens_.is_sign("+") || tokens_.is_sign("-")) {
    const Token& sign = tokens_.next();
    left = joined(Kind::kBinary, sign.line, std::move(left), parse_concatenation(), sign.text);
  }
  return left;
}

ExpressionPointer ExpressionParser::parse_concatenation() {
  ExpressionPointer first = parse_product();
  if (!tokens_.is_sign("~")) return first;
  ExpressionPointer made = joined(Kind::kConcatenation, tokens_.current().line, std::move(first), nullptr);
  while (tokens_.skip_sign("~")) made->parts.push_back(parse_product());
  check_depth(*made);
  return made;
}

ExpressionPointer ExpressionParser::parse_product() {
  ExpressionPointer left = parse_power();
  while (tokens_.is_sign("*") || tokens_.is_sign("/") || tokens_.is_sign("//") || tokens_.is_sign("%")) {
    const Token& sign = tokens_.next();
    left = joined(Kind::kBinary, sign.line, std::move(left), parse_power(), sign.text);
  }
  return left;
}

ExpressionPointer ExpressionParser::parse_power() {
  ExpressionPointer left = parse_unary();
  while (tokens_.is_sign("**")) {
    const int line = tokens_.next().line;
    left = joined(Kind::kBinary, line, std::move(left), parse_unary(), "**");
  }
  return left;
}

ExpressionPointer ExpressionParser::parse_unary(bool with_filters) {
  ExpressionPointer value;
  if (tokens_.is_sign("-") || tokens_.is_sign("+")) {
    const Level level(*this);
    const Token& sign = tokens_.next();
    value = joined(sign.text == "-" ? Kind::kNegative : Kind::kPositive, sign.line, parse_unary(false), nullptr);
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  return with_filters ? parse_filters_and_tests(std::move(value)) : std::move(value);
}

}  // namespace gptq::jinja
