// An output that is there already.
#pragma once

#include <optional>

#include "gptq/gptq.h"
#include "io/json.h"

namespace gptq {

// The job's recipe, with the group size that its model gives, if job.output is a whole quantized model of that recipe,
// so that Job::skip_existing has nothing to do; nothing if there is no output. Throws ExistsError that names the
// difference if it is something else.
std::optional<Recipe> finished_recipe(const Job& job);

}  // namespace gptq
