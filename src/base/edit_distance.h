// How alike two names are, for errors that say what was probably meant.
#pragma once

#include <cstdint>
#include <string_view>

namespace gptq {

// Insertions, deletions and replacements of a character that turn `a` into `b` (Levenshtein).
int64_t edit_distance(std::string_view a, std::string_view b);

}  // namespace gptq
