// The error family. A message says what was found, where, what was expected and the way out.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace gptq {

// Whatever ends a job. Catch this to catch everything the library throws on purpose.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The user can fix it: a file, a flag, a folder.
class InputError : public Error {
 public:
  using Error::Error;
};

// The input is sound, but this program does not know the kind.
class UnsupportedError : public InputError {
 public:
  using InputError::InputError;
};

// A device ran out of memory or failed.
class DeviceError : public Error {
 public:
  using Error::Error;
};

// The caller asked to stop (Job::stop).
class Cancelled : public Error {
 public:
  Cancelled() : Error("cancelled") {}
};

// Concatenates its arguments as operator<< prints them: cat("found ", 3, " of ", n).
template <typename... Args>
std::string cat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return std::move(out).str();
}

}  // namespace gptq
