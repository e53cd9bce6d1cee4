// The device seconds between changes of its work, measured with events on its stream.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include <cuda_runtime_api.h>

namespace gptq::cuda {

class DeviceClock {
 public:
  DeviceClock(std::string device, cudaStream_t stream) : device_(std::move(device)), stream_(stream) {}
  ~DeviceClock();
  DeviceClock(const DeviceClock&) = delete;
  DeviceClock& operator=(const DeviceClock&) = delete;

  // The work that is queued from now on belongs to `stage` and `op`; both are literals.
  void mark(const char* stage, const char* op);
  // Adds up what the device has finished; call when it is idle.
  void collect();
  const std::map<std::pair<std::string, std::string>, double>& seconds() const { return seconds_; }

 private:
  struct Mark {
    const char *stage, *op;
    cudaEvent_t event;
  };
  const std::string device_;
  const cudaStream_t stream_;
  std::vector<Mark> marks_;
  std::vector<cudaEvent_t> free_;
  std::map<std::pair<std::string, std::string>, double> seconds_;
};

}  // namespace gptq::cuda
