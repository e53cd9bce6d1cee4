#include "data/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "base/error.h"
#include "data/jinja/expression_parser.h"
#include "data/jinja/targets.h"
#include "data/jinja/text.h"

namespace gptq::jinja {
namespace {

using Kind = Statement::Kind;
using Words = std::initializer_list<std::string_view>;

constexpr int kDeepestBlocks = 100;  // in one another

bool has_name(const Target& target, std::string_view name) {
  return target.name == name || std::any_of(target.parts.begin(), target.parts.end(),
                                            [&](const Target& part) { return has_name(part, name); });
}

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokens_of(source)), expressions_(tokens_) {}

  Body run() { return parse_body({}); }

 private:
  // Statements up to a block of one of these names, which becomes the current token; up to the end if there are none.
  Body parse_body(Words ends) {
    Body body;
    const int first = tokens_.current().line;
    while (!tokens_.is(Token::Kind::kEnd)) {
      const Token& token = tokens_.next();
      if (token.kind == Token::Kind::kData) {
        body.push_back({.kind = Kind::kData, .line = token.line, .text = token.text});
      } else if (token.kind == Token::Kind::kPrintBegin) {
        Statement print{.kind = Kind::kPrint, .line = token.line};
        print.expressions.push_back(expressions_.parse_tuple());
        tokens_.expect(Token::Kind::kPrintEnd, "\"}}\"");
        body.push_back(std::move(print));
      } else {
        for (const std::string_view end : ends)
          if (tokens_.is_name(end)) return body;
        body.push_back(parse_statement());
        tokens_.expect(Token::Kind::kBlockEnd, "\"%}\"");
      }
    }
    if (ends.size() != 0) refuse_line(first, cat("a block has no ", *(ends.end() - 1)));
    return body;
  }

  // The body of a block behind the rest of its tag.
  Body parse_block(Words ends) {
    tokens_.skip_sign(":");
    tokens_.expect(Token::Kind::kBlockEnd, "\"%}\"");
    if (++depth_ > kDeepestBlocks)
      refuse_line(tokens_.current().line, cat("blocks are nested deeper than ", kDeepestBlocks, " levels"));
    Body body = parse_body(ends);
    --depth_;
    return body;
  }

  // The same, and moves past the block that ends it.
  Body parse_whole_block(std::string_view end) {
    Body body = parse_block({end});
    tokens_.next();
    return body;
  }

  Statement parse_statement() {
    const int line = tokens_.current().line;
    const std::string tag = tokens_.expect_name();
    Statement made{.kind = Kind::kScope, .line = line};
    if (tag == "if") {
      parse_if(made);
    } else if (tag == "for") {
      parse_for(made);
    } else if (tag == "set") {
      parse_set(made);
    } else if (tag == "macro") {
      parse_macro(made);
    } else if (tag == "call") {
      parse_call(made);
    } else if (tag == "filter") {
      made.kind = Kind::kFilter;
      made.expressions.push_back(expressions_.parse_filters(true));
      made.body = parse_whole_block("endfilter");
    } else if (tag == "with") {
      parse_with(made);
    } else if (tag == "generation") {
      made.body = parse_outside_loops("endgeneration");
    } else if (tag == "break" || tag == "continue") {
      if (loops_ == 0) refuse_line(line, cat("the tag ", tag, " is outside a loop"));
      made.kind = tag == "break" ? Kind::kBreak : Kind::kContinue;
    } else if (tag == "print") {
      made.kind = Kind::kPrint;
      while (!tokens_.is(Token::Kind::kBlockEnd)) {
        if (!made.expressions.empty()) tokens_.expect_sign(",");
        made.expressions.push_back(expressions_.parse());
      }
    } else {
      refuse_line(line, cat("the tag ", shown(tag), " is not supported"));
    }
    return made;
  }

  void parse_if(Statement& made) {
    made.kind = Kind::kIf;
    while (true) {
      Branch branch;
      branch.test = expressions_.parse_tuple(false);
      branch.body = parse_block({"elif", "else", "endif"});
      made.branches.push_back(std::move(branch));
      const std::string end = tokens_.next().text;
      if (end == "elif") continue;
      if (end == "else") made.branches.push_back({nullptr, parse_whole_block("endif")});
      return;
    }
  }

  void parse_for(Statement& made) {
    made.kind = Kind::kFor;
    made.targets.push_back(parse_targets(tokens_, "in", false));
    if (has_name(made.targets[0], "loop")) refuse_line(made.line, "a loop assigns to \"loop\"");
    if (!tokens_.skip_name("in")) tokens_.refuse_current("\"in\"");
    made.expressions.push_back(expressions_.parse_tuple(false, "recursive"));
    made.expressions.push_back(tokens_.skip_name("if") ? expressions_.parse() : nullptr);
    made.is_recursive = tokens_.skip_name("recursive");
    ++loops_;
    made.body = parse_block({"else", "endfor"});
    --loops_;
    if (tokens_.next().text == "else") made.otherwise = parse_whole_block("endfor");
  }

  void parse_set(Statement& made) {
    made.targets.push_back(parse_targets(tokens_, "", true));
    if (tokens_.skip_sign("=")) {
      made.kind = Kind::kSet;
      made.expressions.push_back(expressions_.parse_tuple());
      return;
    }
    made.kind = Kind::kSetBlock;
    made.expressions.push_back(expressions_.parse_filters(false));
    made.body = parse_outside_loops("endset");
  }

  // A body that is rendered apart, so that its breaks cannot end a loop around it.
  Body parse_outside_loops(std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Body body = parse_whole_block(end);
    loops_ = loops;
    return body;
  }

  void parse_signature(Signature& signature) {
    tokens_.expect_sign("(");
    while (!tokens_.is_sign(")")) {
      if (!signature.parameters.empty()) tokens_.expect_sign(",");
      const int line = tokens_.current().line;
      signature.parameters.push_back(tokens_.expect_name());
      const bool has_default = tokens_.skip_sign("=");
      if (!has_default && !signature.defaults.empty() && signature.defaults.back() != nullptr)
        refuse_line(line, "a parameter without a default is behind one with it");
      if (!has_default && signature.parameters.back() == "caller")
        refuse_line(line, "the parameter \"caller\" has no default");
      signature.defaults.push_back(has_default ? expressions_.parse() : nullptr);
    }
    tokens_.next();
  }

  // The body of a macro or call block; notes which of the special names it uses.
  Body parse_macro_body(Signature& signature, std::string_view end) {
    const bool caller = std::exchange(expressions_.caller, false);
    const bool varargs = std::exchange(expressions_.varargs, false);
    const bool kwargs = std::exchange(expressions_.kwargs, false);
    Body body = parse_outside_loops(end);
    signature.uses_caller = expressions_.caller;
    signature.uses_varargs = expressions_.varargs;
    signature.uses_kwargs = expressions_.kwargs;
    expressions_.caller |= caller, expressions_.varargs |= varargs, expressions_.kwargs |= kwargs;
    return body;
  }

  void parse_macro(Statement& made) {
    made.kind = Kind::kMacro;
    made.signature = std::make_unique<Signature>();
    made.signature->name = tokens_.expect_name();
    parse_signature(*made.signature);
    made.body = parse_macro_body(*made.signature, "endmacro");
  }

  void parse_call(Statement& made) {
    made.kind = Kind::kCall;
    made.signature = std::make_unique<Signature>();
    made.signature->name = "caller";
    if (tokens_.is_sign("(")) parse_signature(*made.signature);
    made.expressions.push_back(expressions_.parse());
    if (made.expressions[0]->kind != Expression::Kind::kCall) refuse_line(made.line, "the tag call has no call");
    made.body = parse_macro_body(*made.signature, "endcall");
  }

  void parse_with(Statement& made) {
    made.kind = Kind::kWith;
    while (!tokens_.is(Token::Kind::kBlockEnd)) {
      if (!made.targets.empty()) tokens_.expect_sign(",");
      Target target;
      target.name = tokens_.expect_name();
      made.targets.push_back(std::move(target));
      tokens_.expect_sign("=");
      made.expressions.push_back(expressions_.parse());
    }
    made.body = parse_whole_block("endwith");
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int depth_ = 0, loops_ = 0;
};

}  // namespace

Body parse(std::string_view source) { return Parser(source).run(); }

}  // namespace gptq::jinja
