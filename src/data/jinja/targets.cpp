#include "data/jinja/targets.h"

#include <algorithm>
#include <initializer_list>

#include "base/error.h"

namespace gptq::jinja {
namespace {

constexpr int kDeepest = 100;  // tuples in one another

Target parse_several(TokenStream& tokens, std::string_view end, bool with_attributes, int depth);

Target parse_one(TokenStream& tokens, bool with_attributes, int depth) {
  const int line = tokens.current().line;
  if (depth > kDeepest) refuse_line(line, cat("tuples are nested deeper than ", kDeepest, " levels"));
  if (tokens.skip_sign("(")) {
    Target target = parse_several(tokens, "", with_attributes, depth + 1);
    tokens.expect_sign(")");
    return target;
  }
  Target target;
  target.name = tokens.expect_name();
  for (const std::string_view constant : {"true", "True", "false", "False", "none", "None"})
    if (target.name == constant) refuse_line(line, cat("\"", constant, "\" cannot be assigned to"));
  if (with_attributes && tokens.skip_sign(".")) target.attribute = tokens.expect_name();
  return target;
}

Target parse_several(TokenStream& tokens, std::string_view end, bool with_attributes, int depth) {
  Target first = parse_one(tokens, with_attributes, depth);
  if (!tokens.is_sign(",")) return first;
  Target tuple;
  tuple.is_tuple = true;
  tuple.parts.push_back(std::move(first));
  while (tokens.skip_sign(",")) {
    if (!tokens.is(Token::Kind::kName) && !tokens.is_sign("(")) break;
    if (!end.empty() && tokens.is_name(end)) break;
    tuple.parts.push_back(parse_one(tokens, with_attributes, depth));
  }
  return tuple;
}

}  // namespace

Target parse_targets(TokenStream& tokens, std::string_view end, bool with_attributes) {
  return parse_several(tokens, end, with_attributes, 1);
}

}  // namespace gptq::jinja
