#include "interrupt.h"

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>

#include <semaphore.h>

#include "failure.h"
#include "gptq/gptq.h"

namespace gptq {
namespace {

constexpr auto kPatience = std::chrono::milliseconds(700);

// All that the signal handler can reach.
sem_t interrupted;
volatile std::sig_atomic_t first_signal = 0;

void note(int signal) {
  if (first_signal == 0) first_signal = signal;
  sem_post(&interrupted);
}

}  // namespace

Interrupt::Interrupt() {
  sem_init(&interrupted, 0, 0);
  struct sigaction action {
  }, hangup{};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART;
  waiter_ = std::thread([this] { wait(); });
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
}

Interrupt::~Interrupt() {
  {
    std::lock_guard lock(mutex_);
    done_ = true;
  }
  finished_.notify_all();
  sem_post(&interrupted);  // nothing to wait for any more
  waiter_.join();
}

void Interrupt::remove_on_exit(const std::string& output) {
  std::lock_guard lock(mutex_);
  output_ = output;
}

void Interrupt::remove_folder_on_exit(const std::string& folder) {
  std::lock_guard lock(mutex_);
  folder_ = folder;
}

int Interrupt::exit_code() { return first_signal == SIGHUP ? 128 + SIGHUP : 128 + SIGINT; }

void Interrupt::wait() {
  while (sem_wait(&interrupted) != 0) {
  }
  std::unique_lock lock(mutex_);
  if (done_) return;
  source_.request_stop();
  if (finished_.wait_for(lock, kPatience, [this] { return done_; })) return;
  if (!output_.empty() && !leave_partial_output(output_)) {
    finished_.wait(lock, [this] { return done_; });  // the output is being put in place
    return;
  }
  std::error_code ignored;
  // Repeated, as a thread that still writes may add a file while the folder is removed.
  for (int attempt = 0; attempt < 3 && !folder_.empty(); ++attempt) std::filesystem::remove_all(folder_, ignored);
  tell_interruption();
  std::_Exit(exit_code());
}

}  // namespace gptq
