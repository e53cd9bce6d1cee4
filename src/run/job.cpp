// plan() and quantize().
#include <optional>
#include <utility>

#include "io/output_folder.h"
#include "run/existing.h"
#include "run/quantize_run.h"
#include "run/rehearse.h"

namespace gptq {
namespace {

// A run that was killed while it cleared up, with its output in place, has done the job.
std::optional<Recipe> done_before(const Job& job) {
  const bool was_placed = (job.skip_existing || job.resume) && OutputFolder::clear_placed(job.output);
  return job.skip_existing || (was_placed && !job.overwrite) ? finished_recipe(job) : std::nullopt;
}

}  // namespace

Plan plan(const Job& asked) {
  Job job = asked;
  const Setup setup = set_up(job);
  const auto rehearsed = [&](const RehearsalOptions& options) { return rehearse(job, setup, options); };
  return decide(job, setup, rehearsed, true).plan;
}

Report quantize(const Job& job, const Listener& listener) {
  if (std::optional<Recipe> recipe = done_before(job)) {
    Report report;
    report.model = job.model;
    report.output = job.output;
    report.recipe = std::move(*recipe);
    report.skipped = true;
    return report;
  }
  return QuantizeRun(job, listener).report();
}

bool leave_partial_output(const std::string& output) { return OutputFolder::leave(output); }

}  // namespace gptq
