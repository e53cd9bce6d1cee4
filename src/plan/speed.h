// Estimates the time of a job's ops on this machine: times a small call of each kind and size on the device.
#pragma once

#include <map>
#include <string>

#include "backend/counting.h"

namespace gptq {

// Multiply-adds, or elements for ops without products.
double work_of(const OpCall& call);

// The number of calls, by stage and call.
using Calls = std::map<std::string, std::map<OpCall, int64_t>>;

class Speeds {
 public:
  Speeds() = default;
  // Times the kinds of `calls`, the most expensive first, for about `budget` seconds, but at least one per op and
  // dtype.
  Speeds(Backend& backend, const Calls& calls, double budget);

  // Seconds by stage. Sizes without a trial have the speed of the most similar ones of their op and dtype.
  std::map<std::string, double> seconds(const Calls& calls) const;
  // Seconds per byte moved between the host and the device; 0 if they share memory.
  double seconds_per_byte() const { return seconds_per_byte_; }

 private:
  const double* nearest(const OpCall& call) const;

  ops::TrialLimits limits_;
  double seconds_per_byte_ = 0;
  std::map<OpCall, double> speeds_;  // work a second
};

}  // namespace gptq
