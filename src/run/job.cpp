// plan() and quantize().
#include "io/output_folder.h"
#include "run/existing.h"
#include "run/quantize_run.h"
#include "run/rehearse.h"

namespace gptq {

Plan plan(const Job& job) {
  const Setup setup = set_up(job);
  const auto rehearsed = [&](const RehearsalOptions& options) { return rehearse(job, setup, options); };
  return decide(job, setup, rehearsed, true).plan;
}

Report quantize(const Job& job, const Listener& listener) {
  if (job.skip_existing && is_done(job)) {
    Report report;
    report.model = job.model;
    report.output = job.output;
    report.recipe = job.recipe;
    report.skipped = true;
    return report;
  }
  return QuantizeRun(job, listener).report();
}

bool leave_partial_output(const std::string& output) { return OutputFolder::leave(output); }

}  // namespace gptq
