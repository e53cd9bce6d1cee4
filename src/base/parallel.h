// A fixed pool of threads that runs index ranges. Which thread runs an index never changes its result, so results do
// not depend on the number of threads as long as each index writes only its own data.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace gptq {

class ThreadPool {
 public:
  // `threads` counts the caller: ThreadPool(1) starts none. 0: one per core that this process may run on.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }
  // Index of the calling thread: 1 .. size() - 1 in a pool's own threads, 0 in any other.
  static int thread_index();

  // Calls body(i) once for every i in [0, count), in any order, on all threads; returns when all are done.
  // Rethrows the first exception of a body, after the other bodies have ended. Bodies must not call for_each() on the
  // same pool.
  void for_each(int64_t count, const std::function<void(int64_t)>& body);

 private:
  void stop() noexcept;
  void work(int index);
  void run_bodies();

  std::vector<std::thread> workers_;
  std::atomic<uint32_t> round_ = 0;  // calls of for_each() so far; workers sleep on it
  std::atomic<bool> stopping_ = false;
  bool fits_ = true;           // there are no more threads than cores
  std::atomic<int> core_ = 0;  // the caller's core: workers avoid it if fits_

  // The current call of for_each(). Workers join while it is open; it changes only while closed and without workers.
  std::atomic<bool> open_ = false;
  std::atomic<int> joined_ = 0;
  std::atomic<int64_t> next_ = 0;
  int64_t count_ = 0;
  const std::function<void(int64_t)>* body_ = nullptr;
  std::mutex mutex_;  // guards failure_
  std::exception_ptr failure_;
};

// Cores that this process may use under its affinity and cgroup quota; at least 1.
int available_cores();

}  // namespace gptq
