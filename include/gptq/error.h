// The error family: what the library throws on purpose. A message is one sentence. It names options in backquotes, by
// their keys and perhaps a value: `desc_act`, `sym=false`; spell_options() (gptq/options.h) writes them as a front end
// has them.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

namespace gptq {

// The subject of an error, as far as it is known; else empty.
struct ErrorSubject {
  std::string option;  // its key: "desc_act"
  std::string file;    // or folder
  std::string tensor;
};

// Whatever ends a job.
class Error : public std::runtime_error {
 public:
  // Where the subject does not say it, the option is the one that the sentence starts with.
  explicit Error(const std::string& text, ErrorSubject subject = {});
  const ErrorSubject& subject() const noexcept { return *subject_; }

 private:
  std::shared_ptr<const ErrorSubject> subject_;  // shared, so that copying an exception cannot throw
};

// The user can fix it: a file, an option, a folder.
class InputError : public Error {
 public:
  using Error::Error;
};

// The input is sound, but this program does not know the kind.
class UnsupportedError : public InputError {
 public:
  using InputError::InputError;
};

// The output exists, or another run is writing it: name another, or ask for it to be replaced.
class ExistsError : public InputError {
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
