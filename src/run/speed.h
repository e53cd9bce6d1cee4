// How long the ops of a job take on this machine: each kind and size of call is tried once, in small, on the device
// itself.
#pragma once

#include <map>
#include <string>

#include "backend/counting.h"

namespace gptq {

// Multiply-adds, or elements where an op has no products.
double work_of(const OpCall& call);

// Seconds by stage for `calls`, of which there are so many each. Measuring ends after about `budget` seconds: sizes
// that were not reached take the speed of the nearest one measured of their op.
std::map<std::string, double> estimate_seconds(Backend& backend,
                                               const std::map<std::string, std::map<OpCall, int64_t>>& calls,
                                               double budget);

}  // namespace gptq
