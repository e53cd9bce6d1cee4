// Parses what a tag assigns to.
#pragma once

#include "data/jinja/syntax.h"
#include "data/jinja/token_stream.h"

namespace gptq::jinja {

// A name, or several in a tuple; with_attributes: also attributes of a namespace. The name `end` ends a tuple.
Target parse_targets(TokenStream& tokens, std::string_view end, bool with_attributes);

}  // namespace gptq::jinja
