// Parses primary expressions: literals, names, and what is in brackets.
#pragma once

#include <string>
#include <string_view>

#include "data/jinja/syntax.h"
#include "data/jinja/token_stream.h"

namespace gptq::jinja {

class PrimaryParser {
 public:
  explicit PrimaryParser(TokenStream& tokens) : tokens_(tokens) {}
  virtual ~PrimaryParser() = default;

  // A whole expression; with_conditional: which may be an `a if b else c`.
  virtual ExpressionPointer parse(bool with_conditional = true) = 0;
  // One expression, or a tuple without parentheses, which the end of the tag or the name `end` ends.
  ExpressionPointer parse_tuple(bool with_conditional = true, std::string_view end = "", bool in_parentheses = false);

  // The names caller, varargs and kwargs that were read.
  bool caller = false, varargs = false, kwargs = false;

 protected:
  // Holds one level of recursion. Throws if there are too many.
  class Level {
   public:
    explicit Level(PrimaryParser& parser);
    ~Level() { --parser_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    PrimaryParser& parser_;
  };

  ExpressionPointer make(Expression::Kind kind, int line, std::string text = "") const;
  // Of one or two parts.
  ExpressionPointer joined(Expression::Kind kind, int line, ExpressionPointer left, ExpressionPointer right,
                           std::string text = "") const;
  // Computes the depth of an expression from its parts. Throws if it is too large.
  void check_depth(Expression& expression) const;

  ExpressionPointer parse_primary();

  TokenStream& tokens_;

 private:
  ExpressionPointer parse_name();
  ExpressionPointer parse_list();
  ExpressionPointer parse_dict();

  int depth_ = 0;
};

}  // namespace gptq::jinja
