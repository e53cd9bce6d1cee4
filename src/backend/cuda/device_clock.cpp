#include "backend/cuda/device_clock.h"

#include "backend/cuda/cuda_memory.h"

namespace gptq::cuda {

DeviceClock::~DeviceClock() {
  for (const Mark& mark : marks_) cudaEventDestroy(mark.event);
  for (cudaEvent_t event : free_) cudaEventDestroy(event);
}

void DeviceClock::mark(const char* stage, const char* op) {
  constexpr size_t kMany = 4096;
  if (!marks_.empty() && marks_.back().stage == stage && marks_.back().op == op) return;
  if (marks_.size() >= kMany) collect();
  cudaEvent_t event = nullptr;
  if (!free_.empty()) {
    event = free_.back();
    free_.pop_back();
  } else {
    check(cudaEventCreate(&event), device_, "making an event");
  }
  check(cudaEventRecord(event, stream_), device_, "queueing an event");
  marks_.push_back({stage, op, event});
}

void DeviceClock::collect() {
  size_t done = 0;
  for (; done + 1 < marks_.size() && cudaEventQuery(marks_[done + 1].event) == cudaSuccess; ++done) {
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, marks_[done].event, marks_[done + 1].event);
    seconds_[{marks_[done].stage, marks_[done].op}] += milliseconds / 1e3;
    free_.push_back(marks_[done].event);
  }
  cudaGetLastError();  // "not ready" is no failure
  marks_.erase(marks_.begin(), marks_.begin() + static_cast<int64_t>(done));
}

}  // namespace gptq::cuda
