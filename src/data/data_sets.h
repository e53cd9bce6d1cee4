// Names that people give in the place of a text: data sets that other quantizers download.
#pragma once

#include <string>

namespace gptq {

// How to get a data set as a file, if `name` is that of a known one or is like a name on the Hub ("org/name"); else "".
std::string how_to_get(const std::string& name);

}  // namespace gptq
