// From a job's facts to its plan: where states wait, what each memory must hold, how long it takes. It decides by
// rehearsals, and writes into nothing but its result.
#pragma once

#include "gptq/gptq.h"
#include "plan/layout.h"
#include "plan/rehearsal.h"

namespace gptq {

// Host memory that this process takes besides the run's matrices.
struct ProcessMemory {
  int64_t taken = 0;     // code, buffers of threads and libraries
  int64_t reserved = 0;  // kept free under a limit, for what threads may yet take
};

struct Decision {
  Plan plan;
  Strategy strategy;
  ProcessMemory process;
};

// Takes the first strategy that fits: states on the devices, in host memory, in a spill file; with the next block read
// ahead, else without. Throws InputError with the numbers where nothing fits. Time is estimated where `with_time`,
// which takes about half a second on an idle machine.
Decision decide(const Job& job, const Setup& setup, const Rehearse& rehearse, bool with_time);

// One line: time, memory, disk.
std::string short_form(const Plan& plan);

// Bytes of memory that the run's matrices may take of `device`: its limit, less what this process takes otherwise.
// 0: no limit.
int64_t budget_of(const Resources& resources, const ProcessMemory& process, const std::string& device);

}  // namespace gptq
