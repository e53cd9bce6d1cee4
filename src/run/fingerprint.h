// All that decides the bytes of an output, so that a run continues only what it would have computed itself.
#pragma once

#include <string>
#include <vector>

#include "gptq/gptq.h"
#include "io/json.h"
#include "plan/facts.h"
#include "run/session.h"

namespace gptq {

// Version, the model's files (sizes, and hashes of config.json and of the headers), recipe, calibration ids, batches,
// precision, what the devices' results depend on, and the output's shards.
Json fingerprint(const Job& job, const Facts& facts, Devices& devices, const std::vector<TokenSequence>& sequences);

// "recipe.bits was 4 and is 3": the first difference, or nothing.
std::string difference(const Json& before, const Json& now);

}  // namespace gptq
