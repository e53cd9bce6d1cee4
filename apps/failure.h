// How the program says why it failed: a sentence on stderr, with --json an object on stdout too, and an exit code.
#pragma once

#include <exception>
#include <string>

namespace gptq {

// Exit codes; 128 + the signal when interrupted.
constexpr int kFailed = 1, kBadInput = 2, kOutputExists = 3;

// Whether failures are also told as JSON on stdout, which then holds {"error": {"kind", "message", "file", "option"}},
// "tensor" where it is known, and nothing else. Exceptions that nobody catches are told from then on, too.
void tell_failures(bool as_json);

// Tells it, and returns the exit code.
int tell_failure(const std::exception_ptr& failure);

// For an exit that does not wait for what is under way.
void tell_interruption() noexcept;

}  // namespace gptq
