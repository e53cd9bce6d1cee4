// A job run on devices that only count: what it takes of each memory, and which ops it calls how often.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "backend/counting.h"
#include "run/setup.h"

namespace gptq {

struct RehearsalOptions {
  StatePlace states = StatePlace::device;
  int64_t sequences_at_once = INT64_MAX;  // at most
  bool keeps_inputs = true;
  bool read_ahead = true;
  size_t max_held = MemoryPool::kMaxHeld;  // bytes a device holds for reuse
  // Memory that may be taken, by device ("cpu" is the host: weights on their way, states, packing, and everything of a
  // CPU that computes); a device that is missing has no limit.
  std::map<std::string, int64_t> limits;
};

struct Rehearsal {
  std::map<std::string, int64_t> peaks;  // by device, in bytes; always one of "cpu"
  // By stage: calls, for the whole job.
  std::map<std::string, std::map<OpCall, int64_t>> calls;
  int64_t tokens = 0, sequences = 0;
  int64_t state_bytes_moved = 0;  // between host and devices, for the whole job
  int64_t sequences_at_once = 0;  // that pass a step together where memory allows no more
};

// Throws DeviceError where a limit does not suffice.
Rehearsal rehearse(const Job& job, const Setup& setup, const RehearsalOptions& options);

}  // namespace gptq
