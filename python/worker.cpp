#include "worker.h"

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "convert.h"

namespace gptq::python {
namespace {

constexpr std::chrono::milliseconds kPatience{50};  // until signals are looked at

void deliver(const News& news, const nb::object& on_message, const nb::object& on_progress) {
  if (!on_message.is_none()) {
    for (const News::Message& message : news.messages)
      on_message(message.level == Level::warning, nb::str(with_keywords(message.text).c_str()));
  }
  if (!on_progress.is_none() && news.progress) on_progress(to_python(*news.progress));
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

}  // namespace

Listener Mailbox::listener() {
  return {.on_message =
              [this](Level level, const std::string& text) {
                const std::lock_guard lock(mutex_);
                news_.messages.push_back({level, text});
                changed_.notify_one();
              },
          .on_progress =
              [this](const Progress& progress) {
                const std::lock_guard lock(mutex_);
                news_.progress = progress;
                changed_.notify_one();
              }};
}

void Mailbox::finish() {
  const std::lock_guard lock(mutex_);
  news_.is_done = true;
  changed_.notify_one();
}

News Mailbox::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kPatience, [&] { return news_.is_done || !news_.messages.empty() || news_.progress; });
  const bool is_done = news_.is_done;
  return std::exchange(news_, News{.messages = {}, .progress = {}, .is_done = is_done});
}

void run(const Work& work, const nb::object& on_message, const nb::object& on_progress) {
  Mailbox mailbox;
  std::stop_source stop;
  std::exception_ptr failure;  // of the work
  std::exception_ptr raised;   // by Python
  {
    const std::jthread thread([&] {
      try {
        work(stop.get_token(), mailbox.listener());
      } catch (...) {
        failure = std::current_exception();
      }
      mailbox.finish();
    });
    for (bool is_done = false; !is_done;) {
      News news;
      {
        const nb::gil_scoped_release released;
        news = mailbox.wait();
      }
      is_done = news.is_done;
      if (raised) continue;
      try {
        deliver(news, on_message, on_progress);
      } catch (...) {
        raised = std::current_exception();
        stop.request_stop();
      }
    }
  }
  if (raised) std::rethrow_exception(raised);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace gptq::python
