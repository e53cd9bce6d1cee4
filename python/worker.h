// Work on a thread of its own while the calling thread serves Python: it delivers messages and progress to callbacks,
// and lets signals be handled, so that Ctrl-C ends the work.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <nanobind/nanobind.h>

#include "gptq/listener.h"

namespace gptq::python {

namespace nb = nanobind;

using Work = std::function<void(const std::stop_token& stop, const Listener& listener)>;

// What the work has said and Python has not heard yet: every message, the latest progress.
struct News {
  struct Message {
    Level level;
    std::string text;
  };
  std::vector<Message> messages;
  std::optional<Progress> progress;
  bool is_done = false;
};

class Mailbox {
 public:
  Listener listener();
  void finish();
  // What is new, after a while at most.
  News wait();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  News news_;
};

// Runs `work`, which must not touch Python, without the GIL. Each callback is callable or None:
// on_message(is_warning, text) and on_progress(dict). What a callback or a signal handler raises asks the work to stop
// and is thrown when it has; then what the work throws.
void run(const Work& work, const nb::object& on_message, const nb::object& on_progress);

}  // namespace gptq::python
