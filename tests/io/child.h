// Runs part of a test in a child process, so that changes of limits and user end with it.
#pragma once

#include <array>
#include <csignal>
#include <functional>
#include <string>

#include <grp.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

namespace gptq::testing_io {

// Runs `body` in a child and returns the outcome: "InputError: its message", "other: ...", or "done".
inline std::string in_child(const std::function<void()>& body) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    std::string outcome = "done";
    try {
      body();
    } catch (const InputError& error) {
      outcome = std::string("InputError: ") + error.what();
    } catch (const std::exception& error) {
      outcome = std::string("other: ") + error.what();
    }
    const ssize_t written = write(ends[1], outcome.data(), outcome.size());
    _exit(written == static_cast<ssize_t>(outcome.size()) ? 0 : 1);
  }
  close(ends[1]);
  std::string outcome;
  std::array<char, 4096> buffer{};
  for (ssize_t count = 0; (count = read(ends[0], buffer.data(), buffer.size())) > 0;)
    outcome.append(buffer.data(), static_cast<size_t>(count));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? outcome : "the child died: " + outcome;
}

// Limits files of this process to `bytes`: writes beyond fail as on a full disk.
inline void limit_file_size(rlim_t bytes) {
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{bytes, bytes};
  if (setrlimit(RLIMIT_FSIZE, &limit) != 0) throw Error("no limit set");
}

// Makes this process an ordinary user, as permissions do not apply to root.
inline void become_nobody() {
  if (geteuid() == 0 && (setgroups(0, nullptr) != 0 || setegid(65534) != 0 || seteuid(65534) != 0))
    throw Error("cannot change the user");
}

}  // namespace gptq::testing_io
