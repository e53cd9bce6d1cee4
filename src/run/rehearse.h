// Runs a job on devices that only count: its peak in each memory, and its op calls.
#pragma once

#include "plan/layout.h"
#include "plan/rehearsal.h"

namespace gptq {

// Throws DeviceError if a limit is too small.
Rehearsal rehearse(const Job& job, const Setup& setup, const RehearsalOptions& options);

}  // namespace gptq
