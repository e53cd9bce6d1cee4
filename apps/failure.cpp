#include "failure.h"

#include <cstdlib>
#include <cstring>
#include <new>
#include <system_error>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include "gptq/error.h"
#include "interrupt.h"
#include "options.h"
#include "printing.h"

namespace gptq {
namespace {

bool as_json = false;  // for the handler of uncaught exceptions

struct Failure {
  const char* kind = "internal";
  int code = kFailed;
  std::string message;
  ErrorSubject subject;
};

constexpr const char* kOutOfMemory = "out of memory: give the program more, or take fewer --samples";

Failure describe(const std::exception_ptr& failure) {
  const auto of_error = [](const char* kind, int code, const Error& error) {
    return Failure{kind, code, with_flags(error.what()), error.subject()};
  };
  try {
    std::rethrow_exception(failure);
  } catch (const Cancelled&) {
    return {"cancelled", Interrupt::exit_code(), "interrupted", {}};
  } catch (const ExistsError& error) {
    return of_error("exists", kOutputExists, error);
  } catch (const UnsupportedError& error) {
    return of_error("unsupported", kBadInput, error);
  } catch (const InputError& error) {
    return of_error("input", kBadInput, error);
  } catch (const OutOfMemory& error) {
    return of_error("out_of_memory", kFailed, error);
  } catch (const DeviceError& error) {
    return of_error("device", kFailed, error);
  } catch (const Error& error) {
    return of_error("internal", kFailed, error);
  } catch (const std::bad_alloc&) {
    return {"out_of_memory", kFailed, kOutOfMemory, {}};
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::resource_unavailable_try_again) {
      return {"out_of_memory",
              kFailed,
              "cannot start a thread (" + error.code().message() +
                  "): give the program more memory or processes, or take fewer --threads",
              {}};
    }
    return {"internal", kFailed, error.what(), {}};
  } catch (const std::exception& error) {
    return {"internal", kFailed, error.what(), {}};
  } catch (...) {
    return {"internal", kFailed, "an exception of no known kind", {}};
  }
}

void print_failure(const Failure& failure) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  nlohmann::ordered_json error = {{"kind", failure.kind},
                                  {"message", failure.message},
                                  {"file", or_null(failure.subject.file)},
                                  {"option", or_null(failure.subject.option)}};
  if (!failure.subject.tensor.empty()) error["tensor"] = failure.subject.tensor;
  print_json(text_of({{"error", std::move(error)}}));
  finish_stdout();
}

// Without memory, and past what stdio holds back. `message`: plain words.
void tell_at_once(const char* start, const char* kind, const char* message) noexcept {
  const auto put = [](int descriptor, const char* text) {
    if (write(descriptor, text, std::strlen(text)) < 0) return;  // nobody is left to tell
  };
  for (const char* text : {start, message, "\n"}) put(STDERR_FILENO, text);
  if (!as_json || stdout_is_used()) return;
  for (const char* text : {R"({"error": {"kind": ")", kind, R"(", "message": ")", message,
                           R"(", "file": null, "option": null}})"
                           "\n"})
    put(STDOUT_FILENO, text);
}

// A destructor that needs memory and gets none.
[[noreturn]] void tell_and_exit() noexcept {
  const std::exception_ptr failure = std::current_exception();
  if (!failure) std::abort();
  try {
    std::rethrow_exception(failure);
  } catch (const std::bad_alloc&) {
    tell_at_once("gptq: ", "out_of_memory", kOutOfMemory);
  } catch (...) {
    try {
      tell("gptq: " + describe(failure).message);
    } catch (...) {
      tell_at_once("gptq: ", "out_of_memory", kOutOfMemory);
    }
  }
  std::_Exit(kFailed);
}

}  // namespace

void tell_failures(bool json) {
  as_json = json;
  std::set_terminate(tell_and_exit);
}

int tell_failure(const std::exception_ptr& exception) {
  try {
    const Failure failure = describe(exception);
    tell("gptq: " + failure.message);
    if (as_json && !stdout_is_used() && stdout_is_open()) {
      try {
        print_failure(failure);
      } catch (const StdoutError&) {  // the code says it
      }
    }
    return failure.code;
  } catch (...) {
    tell_at_once("gptq: ", "out_of_memory", kOutOfMemory);
    return kFailed;
  }
}

void tell_interruption() noexcept { tell_at_once("\ngptq: ", "cancelled", "interrupted"); }

}  // namespace gptq
