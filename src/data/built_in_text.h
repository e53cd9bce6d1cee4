// The calibration text of the program's own, for runs that are given none: tools/calibration_text says what is in it.
#pragma once

#include <string_view>

namespace gptq {

inline constexpr const char* kBuiltInTextName = "the built-in text";

// Records in gzip's format, as a file has them: built_in_text.jsonl.gz, which CMake compiles in.
std::string_view built_in_text();

}  // namespace gptq
