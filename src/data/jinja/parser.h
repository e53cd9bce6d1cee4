// Parses a template into its syntax tree.
#pragma once

#include <string_view>

#include "data/jinja/syntax.h"

namespace gptq::jinja {

// Throws UnsupportedError, with the line, for what is no template, and for tags that chat templates do not have.
Body parse(std::string_view source);

}  // namespace gptq::jinja
