#include "data/jinja/operand_parser.h"

#include "base/error.h"

namespace gptq::jinja {

using Kind = Expression::Kind;

ExpressionPointer OperandParser::parse_postfix(ExpressionPointer value) {
  while (true) {
    if (tokens_.is_sign(".") || tokens_.is_sign("[")) {
      value = parse_subscript(std::move(value));
    } else if (tokens_.is_sign("(")) {
      value = parse_call(std::move(value));
    } else {
      return value;
    }
  }
}

ExpressionPointer OperandParser::parse_subscript(ExpressionPointer value) {
  const Token& sign = tokens_.next();
  if (sign.text == ".") {
    if (tokens_.is(Token::Kind::kInteger))
      return joined(Kind::kSubscript, sign.line, std::move(value), parse_primary());
    return joined(Kind::kAttribute, sign.line, std::move(value), nullptr, tokens_.expect_name());
  }
  ExpressionPointer made = parse_subscript_or_slice(std::move(value), sign.line);
  if (tokens_.is_sign(",")) refuse_line(sign.line, "a subscript of several values is not supported");
  tokens_.expect_sign("]");
  return made;
}

ExpressionPointer OperandParser::parse_subscript_or_slice(ExpressionPointer value, int line) {
  ExpressionPointer start = tokens_.is_sign(":") ? nullptr : parse();
  if (!tokens_.skip_sign(":")) return joined(Kind::kSubscript, line, std::move(value), std::move(start));
  const auto bound = [&]() -> ExpressionPointer {
    return tokens_.is_sign(":") || tokens_.is_sign("]") ? nullptr : parse();
  };
  ExpressionPointer made = make(Kind::kSlice, line);
  made->parts.push_back(std::move(value));
  made->parts.push_back(std::move(start));
  made->parts.push_back(bound());
  made->parts.push_back(tokens_.skip_sign(":") ? bound() : nullptr);
  check_depth(*made);
  return made;
}

ExpressionPointer OperandParser::parse_filters_and_tests(ExpressionPointer value) {
  while (true) {
    if (tokens_.skip_sign("|")) {
      value = parse_filter(std::move(value));
    } else if (tokens_.skip_name("is")) {
      value = parse_test(std::move(value));
    } else if (tokens_.is_sign("(")) {
      value = parse_call(std::move(value));
    } else {
      return value;
    }
  }
}

std::string OperandParser::parse_dotted_name() {
  std::string name = tokens_.expect_name();
  while (tokens_.skip_sign(".")) name += "." + tokens_.expect_name();
  return name;
}

ExpressionPointer OperandParser::parse_filter(ExpressionPointer value) {
  const int line = tokens_.current().line;
  ExpressionPointer made = joined(Kind::kFilter, line, std::move(value), nullptr, parse_dotted_name());
  if (tokens_.is_sign("(")) made->arguments = parse_arguments();
  check_depth(*made);
  return made;
}

ExpressionPointer OperandParser::parse_filters(bool inline_start) {
  ExpressionPointer value = make(Kind::kCaptured, tokens_.current().line);
  if (!inline_start && !tokens_.is_sign("|")) return nullptr;
  if (inline_start) value = parse_filter(std::move(value));
  while (tokens_.skip_sign("|")) value = parse_filter(std::move(value));
  return value;
}

ExpressionPointer OperandParser::parse_test(ExpressionPointer value) {
  const int line = tokens_.current().line;
  const bool negated = tokens_.skip_name("not");
  ExpressionPointer made = joined(Kind::kTest, line, std::move(value), nullptr, parse_dotted_name());
  const Token& token = tokens_.current();
  const bool is_operand =
      token.kind == Token::Kind::kText || token.kind == Token::Kind::kInteger || token.kind == Token::Kind::kFloat ||
      tokens_.is_sign("[") || tokens_.is_sign("{") ||
      (token.kind == Token::Kind::kName && token.text != "else" && token.text != "or" && token.text != "and");
  if (tokens_.is_sign("(")) {
    made->arguments = parse_arguments();
  } else if (is_operand) {
    if (token.text == "is" && token.kind == Token::Kind::kName) tokens_.refuse_current("an operand of a test");
    made->arguments.push_back({"", parse_postfix(parse_primary())});
  }
  check_depth(*made);
  return negated ? joined(Kind::kNot, line, std::move(made), nullptr) : std::move(made);
}

ExpressionPointer OperandParser::parse_call(ExpressionPointer callee) {
  ExpressionPointer made = joined(Kind::kCall, tokens_.current().line, std::move(callee), nullptr);
  made->arguments = parse_arguments();
  check_depth(*made);
  return made;
}

std::vector<Argument> OperandParser::parse_arguments() {
  tokens_.expect_sign("(");
  std::vector<Argument> arguments;
  bool only_named = false;
  while (!tokens_.is_sign(")")) {
    if (!arguments.empty()) tokens_.expect_sign(",");
    if (tokens_.is_sign(")")) break;
    std::string name;
    if (tokens_.is_sign("*") || tokens_.is_sign("**")) {
      name = tokens_.next().text;
    } else if (tokens_.is(Token::Kind::kName) && tokens_.following().kind == Token::Kind::kSign &&
               tokens_.following().text == "=") {
      name = tokens_.next().text;
      tokens_.next();
    }
    if (name.empty() && only_named) tokens_.refuse_current("a named argument");
    only_named |= !name.empty();
    arguments.push_back({name, parse()});
  }
  tokens_.next();
  return arguments;
}

}  // namespace gptq::jinja
