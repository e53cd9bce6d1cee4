// Parses expressions, with Jinja's precedence.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "data/jinja/lexer.h"
#include "data/jinja/syntax.h"

namespace gptq::jinja {

// The tokens of a template and how far they are read.
class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& following() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& next() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }
  bool is(Token::Kind kind) const { return current().kind == kind; }
  bool is_sign(std::string_view sign) const { return is(Token::Kind::kSign) && current().text == sign; }
  bool is_name(std::string_view name) const { return is(Token::Kind::kName) && current().text == name; }
  bool skip_sign(std::string_view sign);
  bool skip_name(std::string_view name);
  void expect_sign(std::string_view sign);
  std::string expect_name();
  void expect(Token::Kind kind, std::string_view called);
  [[noreturn]] void refuse_current(std::string_view expected) const;

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  ExpressionPointer parse(bool with_conditional = true);
  // One expression, or a tuple without parentheses, which the end of the tag or the name `end` ends.
  ExpressionPointer parse_tuple(bool with_conditional = true, std::string_view end = "", bool in_parentheses = false);
  // `| a | b`, or `a | b` if it starts inline: of the captured text. Null if there is none.
  ExpressionPointer parse_filters(bool inline_start);
  std::vector<Target> parse_targets(bool& is_tuple, std::string_view end, bool with_attributes);

  // The names caller, varargs and kwargs that were read.
  bool caller = false, varargs = false, kwargs = false;

 private:
  class Level;
  ExpressionPointer make(Expression::Kind kind, int line, std::string text = "") const;
  ExpressionPointer joined(Expression::Kind kind, int line, ExpressionPointer left, ExpressionPointer right,
                           std::string text = "") const;
  void check_depth(Expression& expression) const;

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
  ExpressionPointer parse_primary();
  ExpressionPointer parse_name();
  ExpressionPointer parse_list();
  ExpressionPointer parse_dict();
  ExpressionPointer parse_postfix(ExpressionPointer value);
  ExpressionPointer parse_subscript(ExpressionPointer value);
  ExpressionPointer parse_subscript_or_slice(ExpressionPointer value, int line);
  ExpressionPointer parse_filters_and_tests(ExpressionPointer value);
  ExpressionPointer parse_filter(ExpressionPointer value);
  ExpressionPointer parse_test(ExpressionPointer value);
  ExpressionPointer parse_call(ExpressionPointer callee);
  std::vector<Argument> parse_arguments();
  std::string parse_dotted_name();
  Target parse_target(bool with_attributes);

  TokenStream& tokens_;
  int depth_ = 0;
};

}  // namespace gptq::jinja
