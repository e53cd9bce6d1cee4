// What a report says about a run as a whole, worked out after the last block.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gptq/gptq.h"
#include "plan/plan.h"

namespace gptq {

// Fills in what was decided before the run, and the sizes that follow from it.
void describe_job(Report& report, const Job& job, const Facts& facts, const Layout& layout);

// The run's time by stage, from the host's seconds and the devices' own.
std::vector<std::pair<std::string, double>> stage_seconds(std::map<std::string, double> host,
                                                          const std::vector<Report::DeviceUse>& devices);

// The tokens of experts, for people; empty without experts.
std::string expert_tokens_message(const std::vector<LinearReport>& linears);
// How many input columns no calibration token activates, and what became of them; empty if all are activated.
std::string dead_columns_warning(const std::vector<LinearReport>& linears, const Recipe& recipe);
// The experts with too few tokens; empty if there are none.
std::string few_tokens_warning(const std::vector<LinearReport>& linears, const Recipe& recipe);

// What the final check has seen, and warnings of what should not be so.
std::vector<Notice> check_notices(const Check& check, const std::vector<LinearReport>& linears);

}  // namespace gptq
