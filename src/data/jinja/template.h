// A chat template: a program in the part of Jinja2 that such templates are written in, run with limits on time and
// memory. Its environment is that of transformers' apply_chat_template().
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "data/jinja/globals.h"
#include "io/json.h"

namespace gptq::jinja {

class Template {
 public:
  // Parses a template, which is UTF-8. Throws UnsupportedError, with the line, for what cannot be run.
  explicit Template(std::string_view source);
  ~Template();
  Template(Template&&) noexcept;

  // The text for the variables of an object. Throws InputError, with the line, for what the template refuses or does
  // wrong and for what exceeds the limits; UnsupportedError for what is not supported.
  std::string render(const Json& variables, const Date& now) const;

 private:
  struct Program;
  std::unique_ptr<const Program> program_;
};

}  // namespace gptq::jinja
