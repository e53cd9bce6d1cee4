// From a job's setup to its plan: where states wait, what each memory must hold, how long it takes.
#pragma once

#include "gptq/gptq.h"
#include "run/rehearsal.h"
#include "run/setup.h"

namespace gptq {

// Chooses the placement's states and read_ahead, the first that fits: on the devices, in host memory, in a spill file;
// with the next block read ahead, else without. Throws InputError with the numbers where nothing fits. Time is
// estimated where `with_time`, which takes about half a second on an idle machine.
Plan make_plan(const Job& job, Setup& setup, bool with_time);

std::string_view name_of(StatePlace place);

// One line: time, memory, disk.
std::string short_form(const Plan& plan);

// Bytes of memory that the run's matrices may take of `device`: its limit, less what this process takes besides.
// 0: no limit.
int64_t budget_of(const Setup& setup, const std::string& device);

}  // namespace gptq
