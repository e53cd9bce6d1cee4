// How long the ops of a job take on this machine: each kind and size of call is tried once, in small, on the device
// itself.
#pragma once

#include <map>
#include <string>

#include "backend/counting.h"

namespace gptq {

// Multiply-adds, or elements where an op has no products.
double work_of(const OpCall& call);

// Calls by stage, and how many of each.
using Calls = std::map<std::string, std::map<OpCall, int64_t>>;

class Speeds {
 public:
  Speeds() = default;
  // Tries what `calls` are made of, the costliest first, for about `budget` seconds; one of each op and dtype always.
  Speeds(Backend& backend, const Calls& calls, double budget);

  // Seconds by stage. Sizes that were not tried take the speed of the nearest ones of their op and dtype.
  std::map<std::string, double> seconds(const Calls& calls) const;
  // Of moving a byte between the host and the device; 0 where they are one.
  double seconds_per_byte() const { return seconds_per_byte_; }

 private:
  const double* nearest(const OpCall& call) const;

  ops::TrialLimits limits_;
  double seconds_per_byte_ = 0;
  std::map<OpCall, double> speeds_;  // work a second
};

}  // namespace gptq
