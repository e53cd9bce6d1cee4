// The error family (public, gptq/error.h) and message building.
#pragma once

#include <algorithm>
#include <filesystem>
#include <sstream>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "gptq/error.h"

namespace gptq {

// Concatenates its arguments as operator<< prints them: cat("found ", 3, " of ", n).
template <typename... Args>
std::string cat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return std::move(out).str();
}

// An error about an option, whose sentence starts with its name, perhaps with a value: option_error("bits", " 5: there
// are 2, 3, 4 and 8"), option_error("sym=false", " needs ...").
template <typename... Args>
InputError option_error(std::string_view option, const Args&... args) {
  return InputError(cat('`', option, '`', args...));
}

// An error about a file or folder, whose sentence starts with its path; and one about a tensor there.
template <typename... Args>
InputError file_error(const std::filesystem::path& file, const Args&... args) {
  return InputError(cat(file.string(), ": ", args...), {.option = {}, .file = file.string(), .tensor = {}});
}
template <typename... Args>
InputError tensor_error(const std::filesystem::path& file, const std::string& tensor, const Args&... args) {
  return InputError(cat(file.string(), ": ", args...), {.option = {}, .file = file.string(), .tensor = tensor});
}

inline void check_stop(const std::stop_token& stop) {
  if (stop.stop_requested()) throw Cancelled();
}

// "a, b, c", sorted.
inline std::string listed(std::vector<std::string> words) {
  std::sort(words.begin(), words.end());
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

}  // namespace gptq
