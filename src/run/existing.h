// An output that is there already.
#pragma once

#include <string>

#include "gptq/gptq.h"
#include "io/json.h"

namespace gptq {

// Whether job.output is a whole quantized model with the job's recipe, so that Job::skip_existing has nothing to do;
// false if there is nothing. Throws ExistsError that names the difference if it is something else.
bool is_done(const Job& job);

}  // namespace gptq
