#include "data/jinja/token_stream.h"

#include "base/error.h"

namespace gptq::jinja {

bool TokenStream::skip_sign(std::string_view sign) {
  if (!is_sign(sign)) return false;
  next();
  return true;
}

bool TokenStream::skip_name(std::string_view name) {
  if (!is_name(name)) return false;
  next();
  return true;
}

void TokenStream::refuse_current(std::string_view expected) const {
  refuse_line(current().line, cat("found ", name_of(current()), " where ", expected, " was expected"));
}

void TokenStream::expect_sign(std::string_view sign) {
  if (!skip_sign(sign)) refuse_current(cat('"', sign, '"'));
}

std::string TokenStream::expect_name() {
  if (!is(Token::Kind::kName)) refuse_current("a name");
  return next().text;
}

void TokenStream::expect(Token::Kind kind, std::string_view called) {
  if (!is(kind)) refuse_current(called);
  next();
}

}  // namespace gptq::jinja
