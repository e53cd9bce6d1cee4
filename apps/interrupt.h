// SIGINT, SIGTERM and SIGHUP: the work at hand ends, and leaves nothing behind.
#pragma once

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

namespace gptq {

// Turns the signals into a stop request. Where the work at hand cannot end within `kPatience`, what it has written so
// far is removed, or left for a later run, and the program exits at once; only the placement of an output is waited
// for. A SIGHUP that is ignored at the start (nohup) stays so.
class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  std::stop_token token() const { return source_.get_token(); }
  // What to remove before an exit at once: the partial output of a run, unless it may be resumed; a folder of files
  // that are not kept.
  void remove_on_exit(const std::string& output);
  void remove_folder_on_exit(const std::string& folder);

  // Of the program once it has been interrupted: 130, and 129 after SIGHUP.
  static int exit_code();

 private:
  void wait();

  std::stop_source source_;
  std::mutex mutex_;
  std::condition_variable finished_;
  bool done_ = false;
  std::string output_, folder_;
  std::thread waiter_;  // last: uses the members above
};

}  // namespace gptq
