// A job run on devices that only count: what it takes of each memory, and which ops it calls how often.
#pragma once

#include "plan/layout.h"
#include "plan/rehearsal.h"

namespace gptq {

// Throws DeviceError where a limit does not suffice.
Rehearsal rehearse(const Job& job, const Setup& setup, const RehearsalOptions& options);

}  // namespace gptq
