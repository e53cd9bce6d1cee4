// The error family: what the library throws on purpose. A message is one sentence that names the file, tensor or flag.
#pragma once

#include <stdexcept>

namespace gptq {

// Whatever ends a job.
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

// There is no room for what was asked; less may fit.
class OutOfMemory : public DeviceError {
 public:
  using DeviceError::DeviceError;
};

// The caller asked to stop (Job::stop).
class Cancelled : public Error {
 public:
  Cancelled() : Error("cancelled") {}
};

}  // namespace gptq
