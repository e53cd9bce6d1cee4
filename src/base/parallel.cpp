#include "base/parallel.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <string>
#include <utility>

#include <sched.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace gptq {
namespace {

// Spin time before a thread sleeps: longer than most gaps between two rounds. Waking a sleeping thread takes about 50
// us on a virtual machine.
constexpr auto kSpinTime = std::chrono::microseconds(50);

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Spins until is_done(), at most for kSpinTime.
template <typename Condition>
void spin_until(const Condition& is_done) {
  constexpr int kSpinsPerClock = 32;  // reading the clock is slower than one spin
  const auto end = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int spin = 0; spin < kSpinsPerClock; ++spin) {
      if (is_done()) return;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
}

// Excludes one core from this thread's affinity. Otherwise some schedulers put all threads of a small virtual machine
// on one core.
void avoid_core(int core) {
  cpu_set_t cores;
  if (sched_getaffinity(getpid(), sizeof cores, &cores) != 0) return;
  CPU_CLR(core, &cores);
  if (CPU_COUNT(&cores) > 0) sched_setaffinity(0, sizeof cores, &cores);
}

thread_local int index_of_thread = 0;

}  // namespace

int available_cores() {
  cpu_set_t set;
  int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                          : static_cast<int>(std::thread::hardware_concurrency());
  std::string quota;
  double period = 0;
  if (std::ifstream cpu_max("/sys/fs/cgroup/cpu.max"); cpu_max >> quota >> period && quota != "max" && period > 0) {
    cores = std::min(cores, static_cast<int>(std::ceil(std::stod(quota) / period)));
  }
  return std::max(cores, 1);
}

ThreadPool::ThreadPool(int threads) {
  const int cores = available_cores();
  if (threads <= 0) threads = cores;
  fits_ = threads <= cores;
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
  } catch (...) {  // the system starts no more of them
    stop();
    throw;
  }
}

int ThreadPool::thread_index() { return index_of_thread; }

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() noexcept {
  stopping_ = true;
  ++round_;
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

// Rounds follow each other closely, so workers spin for the next one before they sleep. A worker that comes too late
// finds the round closed, and the caller does not wait for it.
void ThreadPool::for_each(int64_t count, const std::function<void(int64_t)>& body) {
  if (workers_.empty() || count <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  body_ = &body;
  count_ = count;
  next_ = 0;
  core_ = sched_getcpu();
  open_ = true;
  ++round_;
  round_.notify_all();
  run_bodies();
  open_ = false;
  const auto all_left = [this] { return joined_ == 0; };
  spin_until(all_left);
  while (!all_left()) std::this_thread::yield();
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void ThreadPool::work(int index) {
  index_of_thread = index;
  uint32_t seen = 0;
  while (!stopping_) {
    spin_until([&] { return round_ != seen; });
    round_.wait(seen);
    seen = round_;
    if (fits_ && core_ == sched_getcpu()) avoid_core(core_);
    ++joined_;
    if (open_) run_bodies();
    --joined_;
  }
}

void ThreadPool::run_bodies() {
  for (int64_t i = next_++; i < count_; i = next_++) {
    try {
      (*body_)(i);
    } catch (...) {
      std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      next_ = count_;
    }
  }
}

}  // namespace gptq
