// Options and results of a rehearsal, a job run on devices that only count (run/rehearse.h).
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
  size_t max_held = MemoryPool::kMaxHeld;  // bytes that a device's pool may cache
  // Memory limits by device; devices without an entry have none. "cpu" is the host: staged weights, states, packing,
  // and all matrices of a computing CPU.
  std::map<std::string, int64_t> limits;
};

struct Rehearsal {
  std::map<std::string, int64_t> peaks;  // in bytes by device; "cpu" is always there
  Calls calls;                           // for the whole job
  int64_t tokens = 0, sequences = 0;
  int64_t held_back_tokens = 0;   // of the final check
  int64_t state_bytes_moved = 0;  // between host and devices, for the whole job
  int64_t sequences_at_once = 0;  // sequences that pass a step together, limited by memory
};

// Throws DeviceError if a limit is too small.
using Rehearse = std::function<Rehearsal(const RehearsalOptions& options)>;

}  // namespace gptq
