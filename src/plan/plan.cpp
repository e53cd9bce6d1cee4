#include "plan/plan.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

#include "backend/registry.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/resources.h"
#include "base/stopwatch.h"
#include "format/loaders.h"
#include "model/batch.h"
#include "plan/mixed_bits.h"
#include "plan/speed.h"
#include "quant/observer.h"
#include "quant/targets.h"
#include "tensor/page_memory.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// Estimates: a thread's buffers for products, if none has been computed yet; and uncounted memory: stacks, queues,
// small vectors.
constexpr int64_t kBytesPerThread = int64_t{6} << 20, kSlack = int64_t{5} << 20;
// Kept free under a limit, as buffers grow with the largest call.
constexpr int64_t kReserve = int64_t{8} << 20, kReservePerThread = int64_t{4} << 20;
// Assumed rates, in bytes a second: reading and checking weights, writing to disk, tokenizing text.
constexpr double kReadRate = 1.5e9, kWriteRate = 0.8e9, kTokenizeRate = 6e6;

int threads_of(const Job& job) { return job.threads > 0 ? job.threads : available_cores(); }

// The largest scratch memory of any call.
int64_t scratch_of(const Backend& backend, const Calls& calls) {
  int64_t most = 0;
  for (const auto& [stage, of_stage] : calls) {
    for (const auto& [call, count] : of_stage) most = std::max(most, backend.scratch_bytes(call));
  }
  return most;
}

std::string text_of(int64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

bool wants_check(const Job& job) { return job.final_check && job.recipe.method == Method::gptq; }

// In order of preference. For an accelerator, recomputing inputs is cheaper than moving them.
std::vector<Strategy> strategies_for(const Job& job, const Facts& facts) {
  const bool rebuilds = can_rebuild_inputs(facts.config);
  std::vector<Strategy> states = {{StatePlace::device, true}};
  if (facts.placement.devices != std::vector<std::string>{"cpu"}) {
    if (rebuilds) states.push_back({StatePlace::device, false});
    states.push_back({StatePlace::host, !rebuilds});
  }
  if (!job.spill_dir.empty()) states.push_back({StatePlace::spill, true});
  std::vector<Strategy> strategies;
  for (const bool checks : {true, false}) {
    if (checks && !wants_check(job)) continue;
    for (const bool read_ahead : {true, false}) {
      for (Strategy strategy : states) {
        strategy.read_ahead = read_ahead;
        strategy.checks = checks;
        strategies.push_back(strategy);
      }
    }
  }
  return strategies;
}

std::map<std::string, int64_t> limits_of(const Facts& facts, const ProcessMemory& process) {
  std::map<std::string, int64_t> limits;
  for (const std::string& device : facts.placement.devices)
    limits[device] = budget_of(facts.resources, process, device);
  limits["cpu"] = budget_of(facts.resources, process, "cpu");
  return limits;
}

// Whether a run without cached memory fits: the minimum.
bool fits(const Rehearse& rehearse, RehearsalOptions options) {
  options.max_held = 0;
  try {
    rehearse(options);
    return true;
  } catch (const DeviceError&) {
    return false;
  }
}

[[noreturn]] void refuse(const Job& job, const Facts& facts, const Rehearse& rehearse, const ProcessMemory& process,
                         const Strategy& last) {
  RehearsalOptions least{.strategy = last, .sequences_at_once = 1, .max_held = 0};
  const Rehearsal needed = rehearse(least);
  const int64_t base = process.taken + process.reserved;
  std::string what;
  bool host_is_short = false;
  for (const auto& [device, peak] : needed.peaks) {
    const int64_t needs = device == "cpu" ? peak + base : peak, limit = facts.resources.limit_of(device);
    if (limit == 0 || needs <= limit) continue;
    host_is_short = host_is_short || device == "cpu";
    what += cat(what.empty() ? "" : "; ", device, " may use ", text_of(limit), " (", limit,
                " bytes), and this run needs at least ", text_of(needs), " (", needs, " bytes) there");
  }
  std::string out = "give it more with `max_memory`";
  if (host_is_short && last.states != StatePlace::spill && job.recipe.method == Method::gptq) {
    least.strategy.states = StatePlace::spill;
    least.strategy.keeps_inputs = true;
    const int64_t spilled = rehearse(least).peaks.at("cpu") + base;
    if (spilled < needed.peaks.at("cpu") + base)
      out += cat(", or name a `spill_dir` for the states (then ", text_of(spilled), " of memory do)");
  }
  throw InputError(cat("not enough memory: ", what, ": ", out,
                       ", or take fewer `samples`, a shorter `sequence_length` or `batch_size` 1"));
}

Strategy choose_strategy(const Job& job, const Facts& facts, const Rehearse& rehearse, const ProcessMemory& process) {
  const std::vector<Strategy> strategies = strategies_for(job, facts);
  const std::map<std::string, int64_t> limits = limits_of(facts, process);
  for (const Strategy& strategy : strategies) {
    if (fits(rehearse, {.strategy = strategy, .limits = limits})) return strategy;
  }
  refuse(job, facts, rehearse, process, strategies.back());
}

// Seconds by stage for users: the device's work, or the host's concurrent work if it takes longer.
void estimate_time(const Job& job, const Facts& facts, const Speeds& speeds, const Rehearsal& rehearsal, Plan& plan) {
  std::map<std::string, double> stages = speeds.seconds(rehearsal.calls);
  const double moving = static_cast<double>(rehearsal.state_bytes_moved) * speeds.seconds_per_byte();
  if (moving > 0) stages[kMovingStage] = moving;
  double computing = 0;
  for (const auto& [stage, seconds] : stages) computing += seconds;

  const double read_rate =
      job.max_read_rate > 0 ? std::min(kReadRate, static_cast<double>(job.max_read_rate)) : kReadRate;
  const double read = static_cast<double>(plan.source_bytes) / read_rate;
  const double blocks = static_cast<double>(facts.config.blocks);
  const double writing = static_cast<double>(plan.output_bytes) / kWriteRate;
  stages[kPackStage] += 0.05 + std::max(0.0, writing - computing);
  if (stages.count(kCheckStage) != 0) stages[kCheckStage] += static_cast<double>(plan.output_bytes) / kReadRate;
  stages[kReadStage] = read / blocks + std::max(0.0, read - computing);
  if (job.recipe.method == Method::gptq) {
    std::error_code error;
    double text = static_cast<double>(fs::file_size(facts.calibration.file, error));
    if (error) text = 0;  // the built-in text is short
    const auto tokenizer = fs::file_size(facts.checkpoint->folder() / "tokenizer.json", error);
    if (facts.calibration.file.ends_with(".txt") && !error) text += static_cast<double>(tokenizer);
    stages[kCalibrationStage] += text / kTokenizeRate;
  }
  plan.stage_seconds.insert(plan.stage_seconds.end(), stages.begin(), stages.end());
  for (const auto& [stage, seconds] : plan.stage_seconds) plan.seconds += seconds;
  std::sort(plan.stage_seconds.begin(), plan.stage_seconds.end(),
            [](const auto& a, const auto& b) { return a.second > b.second; });
}

// The parts of a plan that need no rehearsal.
Plan plan_of(const Job& job, const Facts& facts, const Layout& layout) {
  Plan plan{.model = job.model, .output = job.output, .device_map = facts.placement.map};
  plan.source_bytes = static_cast<int64_t>(facts.checkpoint->bytes());
  plan.output_bytes = layout.output_bytes;
  plan.quantized_weights = layout.quantized_weights;
  plan.bits_per_weight = layout.bits_per_weight;
  plan.compute_dtype = name_of(facts.precision.computed);
  plan.checkpoint_format = facts.format->name();
  for (const Placement::Unit& unit : facts.placement.units)
    plan.units.push_back({unit.module, unit.computes_on, unit.stays, unit.bytes, unit.visits});
  plan.loaders = loader_verdicts(
      *facts.format, facts.widths.empty() ? layout.linears : mixture(job, facts.widths, facts.config), facts.config);
  if (!facts.widths.empty()) {
    std::string widths;
    for (const int width : facts.widths) widths += cat(widths.empty() ? "" : ", ", width);
    plan.messages.push_back(cat("bits: chosen step by step of ", widths, " for ", job.recipe.average_bits,
                                " on average; sizes and times are those of the average"));
  }
  for (const std::vector<Notice>* notices : {&facts.notices, &layout.notices}) {
    for (const Notice& notice : *notices)
      (notice.level == Level::warning ? plan.warnings : plan.messages).push_back(notice.text);
  }
  return plan;
}

void add_memory(const Facts& facts, const Rehearsal& expected, const ProcessMemory& process, Plan& plan) {
  const Machine& machine = facts.resources.machine;
  const auto description_of = [&](const std::string& name) -> std::string {
    for (const DeviceInfo& device : machine.accelerators) {
      if (device.name == name) return device.description;
    }
    return traits_of(name).is_simulated ? "simulated accelerator" : machine.cpu.description;
  };
  for (const std::string& name : facts.placement.devices) {
    if (name == "cpu") continue;
    plan.accelerators.push_back({name, description_of(name), expected.peaks.at(name), facts.resources.limit_of(name)});
  }
  plan.host = {"cpu", machine.cpu.description, expected.peaks.at("cpu") + process.taken,
               facts.resources.limit_of("cpu")};
  if (plan.host.peak_bytes > machine.cpu.free_bytes) {
    plan.warnings.push_back(cat("the run takes ", text_of(plan.host.peak_bytes), " of memory, and ",
                                text_of(machine.cpu.free_bytes), " are free now"));
  }
}

void add_states(const Job& job, const Facts& facts, const Rehearsal& expected, const Strategy& strategy, Plan& plan) {
  plan.states = name_of(strategy.states);
  plan.keeps_inputs = strategy.keeps_inputs;
  plan.read_ahead = strategy.read_ahead;
  plan.sequences = expected.sequences;
  plan.tokens = expected.tokens;
  plan.sequences_at_once = std::min(expected.sequences_at_once, expected.sequences);
  if (wants_check(job) && !strategy.checks) {
    plan.warnings.push_back(
        "the final check of the output is left out, as memory is short: `gptq compare` does the same later");
  }
  const int64_t tokens = expected.tokens * (wants_original_states(job.recipe) ? 2 : 1);  // of both streams
  if (strategy.states == StatePlace::spill) plan.spill_bytes = tokens * state_bytes(facts).both();
  constexpr int64_t kFiles = 2;  // in turn
  if (job.checkpoint_states)
    plan.saved_states_bytes = kFiles * (tokens + 2 * expected.held_back_tokens) * state_bytes(facts).residual;
}

}  // namespace

int64_t budget_of(const Resources& resources, const ProcessMemory& process, const std::string& device) {
  const int64_t limit = resources.limit_of(device);
  if (device != "cpu" || limit == 0) return limit;
  return std::max<int64_t>(1, limit - process.taken - process.reserved);
}

Decision decide(const Job& job, const Setup& setup, const Rehearse& rehearse, bool with_time) {
  const Facts& facts = setup.facts;
  Decision decision{.plan = plan_of(job, facts, setup.layout)};
  Plan& plan = decision.plan;

  // Before memory is measured, as timing ops fills their buffers.
  const Stopwatch trying;
  Speeds speeds;
  const Calls calls = rehearse({}).calls;
  auto backend = open_backend(facts.placement.devices[0], {.threads = job.threads});
  if (with_time) {
    speeds = Speeds(*backend, calls, 0.4);
    plan.stage_seconds.emplace_back(kPlanStage, trying.seconds());  // a run starts with it
  }
  const int64_t scratch = scratch_of(*backend, calls);
  backend.reset();  // frees the memory of the trials for the run
  decision.process.taken =
      resident_bytes() - host_bytes_kept() + kSlack + (with_time ? 0 : threads_of(job) * kBytesPerThread) + scratch;
  decision.process.reserved = kReserve + threads_of(job) * kReservePerThread;

  decision.strategy = choose_strategy(job, facts, rehearse, decision.process);
  const Rehearsal expected = rehearse({.strategy = decision.strategy, .limits = limits_of(facts, decision.process)});
  if (with_time) estimate_time(job, facts, speeds, expected, plan);
  add_memory(facts, expected, decision.process, plan);
  add_states(job, facts, expected, decision.strategy, plan);
  return decision;
}

std::string short_form(const Plan& plan) {
  std::string text = plan.sequences > 0 ? cat("plan: ", plan.sequences, " sequences") : "plan: rounding";
  if (plan.seconds > 0) text += cat(", about ", static_cast<int64_t>(std::ceil(plan.seconds)), " s");
  for (const Plan::Device& device : plan.accelerators)
    text += cat(", ", text_of(device.peak_bytes), " on ", device.name);
  text += cat(", ", text_of(plan.host.peak_bytes), " of memory");
  if (plan.spill_bytes > 0) text += cat(", ", text_of(plan.spill_bytes), " spilled");
  text += cat(", output ", text_of(plan.output_bytes));
  if (plan.saved_states_bytes > 0) text += cat(" and ", text_of(plan.saved_states_bytes), " of saved states");
  return text;
}

}  // namespace gptq
