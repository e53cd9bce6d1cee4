// What a rehearsal is asked, and what it finds: a job run on devices that only count (run/rehearse.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "backend/counting.h"
#include "plan/speed.h"
#include "plan/strategy.h"

namespace gptq {

struct RehearsalOptions {
  Strategy strategy;
  int64_t sequences_at_once = INT64_MAX;   // at most
  size_t max_held = MemoryPool::kMaxHeld;  // bytes a device holds for reuse
  // Memory that may be taken, by device ("cpu" is the host: weights on their way, states, packing, and everything of a
  // CPU that computes); a device that is missing has no limit.
  std::map<std::string, int64_t> limits;
};

struct Rehearsal {
  std::map<std::string, int64_t> peaks;  // by device, in bytes; always one of "cpu"
  Calls calls;                           // for the whole job
  int64_t tokens = 0, sequences = 0;
  int64_t state_bytes_moved = 0;  // between host and devices, for the whole job
  int64_t sequences_at_once = 0;  // that pass a step together where memory allows no more
};

// Throws DeviceError where a limit does not suffice.
using Rehearse = std::function<Rehearsal(const RehearsalOptions& options)>;

}  // namespace gptq
