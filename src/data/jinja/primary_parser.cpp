#include "data/jinja/primary_parser.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "base/error.h"

namespace gptq::jinja {

using Kind = Expression::Kind;

namespace {

constexpr int kDeepestCalls = 100;       // expressions in brackets, in one another
constexpr int kDeepestExpression = 400;  // levels of the tree, which a + b + c ... has too

}  // namespace

PrimaryParser::Level::Level(PrimaryParser& parser) : parser_(parser) {
  if (++parser.depth_ <= kDeepestCalls) return;
  --parser.depth_;
  refuse_line(parser.tokens_.current().line, cat("expressions are nested deeper than ", kDeepestCalls, " levels"));
}

ExpressionPointer PrimaryParser::make(Kind kind, int line, std::string text) const {
  auto made = std::make_unique<Expression>(Expression{.kind = kind, .line = line});
  made->text = std::move(text);
  return made;
}

void PrimaryParser::check_depth(Expression& expression) const {
  for (const ExpressionPointer& part : expression.parts)
    if (part != nullptr) expression.depth = std::max(expression.depth, part->depth + 1);
  for (const Argument& argument : expression.arguments)
    expression.depth = std::max(expression.depth, argument.value->depth + 1);
  if (expression.depth > kDeepestExpression)
    refuse_line(expression.line, cat("an expression has more than ", kDeepestExpression, " levels"));
}

ExpressionPointer PrimaryParser::joined(Kind kind, int line, ExpressionPointer left, ExpressionPointer right,
                                        std::string text) const {
  ExpressionPointer made = make(kind, line, std::move(text));
  made->parts.push_back(std::move(left));
  if (right != nullptr) made->parts.push_back(std::move(right));
  check_depth(*made);
  return made;
}

ExpressionPointer PrimaryParser::parse_primary() {
  const Level level(*this);
  const Token& token = tokens_.current();
  if (token.kind == Token::Kind::kName) return parse_name();
  if (token.kind == Token::Kind::kText) {
    ExpressionPointer made = make(Kind::kLiteral, token.line);
    made->literal = Text{};
    while (tokens_.is(Token::Kind::kText)) made->text += tokens_.next().text;
    return made;
  }
  if (token.kind == Token::Kind::kInteger || token.kind == Token::Kind::kFloat) {
    ExpressionPointer made = make(Kind::kLiteral, token.line);
    int64_t whole = 0;
    std::from_chars(token.text.data(), token.text.data() + token.text.size(), whole);
    made->literal =
        token.kind == Token::Kind::kInteger ? Value(whole) : Value(std::strtod(token.text.c_str(), nullptr));
    tokens_.next();
    return made;
  }
  if (tokens_.skip_sign("(")) {
    ExpressionPointer value = parse_tuple(true, "", true);
    tokens_.expect_sign(")");
    return value;
  }
  if (tokens_.is_sign("[")) return parse_list();
  if (tokens_.is_sign("{")) return parse_dict();
  tokens_.refuse_current("an expression");
}

ExpressionPointer PrimaryParser::parse_name() {
  const Token& token = tokens_.next();
  const std::string& name = token.text;
  if (name == "true" || name == "True" || name == "false" || name == "False" || name == "none" || name == "None") {
    ExpressionPointer made = make(Kind::kLiteral, token.line);
    if (name[0] != 'n' && name[0] != 'N') made->literal = name[0] == 't' || name[0] == 'T';
    return made;
  }
  caller |= name == "caller", varargs |= name == "varargs", kwargs |= name == "kwargs";
  return make(Kind::kName, token.line, name);
}

ExpressionPointer PrimaryParser::parse_tuple(bool with_conditional, std::string_view end, bool in_parentheses) {
  ExpressionPointer tuple = make(Kind::kTuple, tokens_.current().line);
  bool is_tuple = false;
  while (true) {
    const bool ends = tokens_.is(Token::Kind::kPrintEnd) || tokens_.is(Token::Kind::kBlockEnd) ||
                      tokens_.is_sign(")") || (!end.empty() && tokens_.is_name(end));
    if (ends) break;
    tuple->parts.push_back(parse(with_conditional));
    if (!tokens_.skip_sign(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !tuple->parts.empty()) return std::move(tuple->parts[0]);
  if (!is_tuple && !in_parentheses) tokens_.refuse_current("an expression");
  check_depth(*tuple);
  return tuple;
}

ExpressionPointer PrimaryParser::parse_list() {
  ExpressionPointer made = make(Kind::kList, tokens_.next().line);
  while (!tokens_.is_sign("]")) {
    if (!made->parts.empty()) tokens_.expect_sign(",");
    if (tokens_.is_sign("]")) break;
    made->parts.push_back(parse());
  }
  tokens_.next();
  check_depth(*made);
  return made;
}

ExpressionPointer PrimaryParser::parse_dict() {
  ExpressionPointer made = make(Kind::kDict, tokens_.next().line);
  while (!tokens_.is_sign("}")) {
    if (!made->parts.empty()) tokens_.expect_sign(",");
    if (tokens_.is_sign("}")) break;
    made->parts.push_back(parse());
    tokens_.expect_sign(":");
    made->parts.push_back(parse());
  }
  tokens_.next();
  check_depth(*made);
  return made;
}

}  // namespace gptq::jinja
