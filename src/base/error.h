// The error family (public, gptq/error.h) and message building.
#pragma once

#include <sstream>
#include <string>

#include "gptq/error.h"

namespace gptq {

// Concatenates its arguments as operator<< prints them: cat("found ", 3, " of ", n).
template <typename... Args>
std::string cat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return std::move(out).str();
}

}  // namespace gptq
