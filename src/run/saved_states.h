// States between two blocks in a file, so that a later run need not compute them again.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "run/states.h"

namespace gptq {

// Writes the residuals of all batches of the stores, one store after the other, and returns the file's digest. The
// states are on `backend` or on the host, and stay there. Throws InputError if the disk is full. Does not sync.
uint64_t save_states(const std::filesystem::path& file, const std::vector<StateStore*>& stores, Backend& backend);

// Replaces the residuals of stores with as many batches of the same shapes. False, and nothing is replaced, if the
// file is missing or not the one with this digest.
bool restore_states(const std::filesystem::path& file, uint64_t digest, const std::vector<StateStore*>& stores,
                    Backend& backend);

// Bytes of the file: the residuals of all batches of the stores, one store after the other.
int64_t saved_bytes(const std::vector<StateStore*>& stores);

// When to save states: seldom enough that it takes a twentieth of the time, or always if they are small.
class SavingSchedule {
 public:
  using Clock = std::chrono::steady_clock;
  explicit SavingSchedule(Clock::time_point start) : last_(start) {}
  bool is_due(int64_t bytes, Clock::time_point now) const;
  void saved(int64_t bytes, Clock::time_point begin, Clock::time_point end);

 private:
  Clock::time_point last_;
  double seconds_per_byte_ = 1e-9;  // a guess until something is saved
};

}  // namespace gptq
