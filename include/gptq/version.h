// The version of the library: of the headers as macros, of the linked code as a string.
#pragma once

#include <string>

// CMakeLists.txt reads these lines.
#define GPTQ_VERSION_MAJOR 0
#define GPTQ_VERSION_MINOR 2
#define GPTQ_VERSION_PATCH 0

namespace gptq {

std::string version();  // "0.2.0"

}  // namespace gptq
