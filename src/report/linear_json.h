// The report of one linear as JSON, and back.
#pragma once

#include "gptq/report.h"
#include "io/json.h"

namespace gptq {

Json to_json(const LinearReport& linear);
// Of to_json(), with the same values; block and expert, which it lacks, are -1. Throws exceptions of the JSON library.
LinearReport parse_linear_report(const Json& json);

}  // namespace gptq
