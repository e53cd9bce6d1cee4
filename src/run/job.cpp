// plan() and quantize().
#include "io/output_folder.h"
#include "run/existing.h"
#include "run/quantize_run.h"
#include "run/rehearse.h"

namespace gptq {
namespace {

// A run that was killed while it cleared up, with its output in place, has done the job.
bool was_done(const Job& job) {
  const bool was_placed = (job.skip_existing || job.resume) && OutputFolder::clear_placed(job.output);
  return (job.skip_existing || (was_placed && !job.overwrite)) && is_done(job);
}

}  // namespace

Plan plan(const Job& job) {
  const Setup setup = set_up(job);
  const auto rehearsed = [&](const RehearsalOptions& options) { return rehearse(job, setup, options); };
  return decide(job, setup, rehearsed, true).plan;
}

Report quantize(const Job& job, const Listener& listener) {
  if (was_done(job)) {
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
