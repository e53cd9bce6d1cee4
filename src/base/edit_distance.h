// Distance between two names, for errors that suggest the intended one.
#pragma once

#include <cstdint>
#include <string_view>

namespace gptq {

// Levenshtein distance: insertions, deletions and replacements of a character that turn `a` into `b`.
int64_t edit_distance(std::string_view a, std::string_view b);

}  // namespace gptq
