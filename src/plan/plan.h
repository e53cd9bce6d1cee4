// From a job's facts to its plan: where states are stored, the peak of each memory, the time. Decides by rehearsals,
// and changes nothing but its result.
#pragma once

#include "gptq/gptq.h"
#include "plan/layout.h"
#include "plan/rehearsal.h"

namespace gptq {

// Host memory of this process other than the run's matrices.
struct ProcessMemory {
  int64_t taken = 0;     // code, buffers of threads and libraries
  int64_t reserved = 0;  // kept free under a limit, for threads
};

struct Decision {
  Plan plan;
  Strategy strategy;
  ProcessMemory process;
};

// Chooses the first strategy that fits: states on the devices, in host memory, or in a spill file; with reading ahead
// or without. Throws InputError with the numbers if none fits. Estimates the time if `with_time`, which takes about
// half a second on an idle machine.
Decision decide(const Job& job, const Setup& setup, const Rehearse& rehearse, bool with_time);

// One line: time, memory, disk.
std::string short_form(const Plan& plan);

// Bytes that the run's matrices may take on `device`: its limit minus other memory of this process. 0: no limit.
int64_t budget_of(const Resources& resources, const ProcessMemory& process, const std::string& device);

}  // namespace gptq
