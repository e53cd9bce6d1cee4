#include "run/plan.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "base/resources.h"
#include "format/format.h"
#include "format/loaders.h"
#include "run/block_quantizer.h"
#include "run/mixed_bits.h"
#include "run/speed.h"
#include "tensor/page_memory.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// What a thread's buffers for products take where none has been computed yet, and what is not counted piece by piece:
// stacks, queues, small vectors.
constexpr int64_t kBytesPerThread = int64_t{6} << 20, kSlack = int64_t{5} << 20;
// Kept free under a limit: buffers grow with the largest call that comes.
constexpr int64_t kReserve = int64_t{8} << 20, kReservePerThread = int64_t{4} << 20;
// Assumed where only a run could tell, in bytes a second: reading and checking weights, writing to disk, making tokens
// of text.
constexpr double kReadRate = 1.5e9, kWriteRate = 0.8e9, kTokenizeRate = 6e6;

int threads_of(const Job& job) { return job.threads > 0 ? job.threads : available_cores(); }

// Of the call that takes most.
int64_t scratch_of(const Backend& backend, const Calls& calls) {
  int64_t most = 0;
  for (const auto& [stage, of_stage] : calls) {
    for (const auto& [call, count] : of_stage) most = std::max(most, backend.scratch_bytes(call));
  }
  return most;
}

// Where states may wait, and whether with the inputs of steps.
struct Waiting {
  StatePlace place = StatePlace::device;
  bool keeps_inputs = true;
};

// In the order in which they are wanted. Computing inputs once more costs an accelerator less than moving them.
std::vector<Waiting> places_for(const Job& job, const Setup& setup) {
  std::vector<Waiting> places = {{StatePlace::device, true}};
  if (setup.placement.devices != std::vector<std::string>{"cpu"}) {
    if (can_rebuild_inputs(setup.config)) places.push_back({StatePlace::device, false});
    places.push_back({StatePlace::host, !can_rebuild_inputs(setup.config)});
  }
  if (!job.spill_dir.empty()) places.push_back({StatePlace::spill, true});
  return places;
}

RehearsalOptions options_for(const Setup& setup, const Waiting& states, bool read_ahead, bool limited) {
  RehearsalOptions options{.states = states.place, .keeps_inputs = states.keeps_inputs, .read_ahead = read_ahead};
  if (!limited) return options;
  std::vector<std::string> devices = setup.placement.devices;
  if (std::count(devices.begin(), devices.end(), "cpu") == 0) devices.push_back("cpu");
  for (const std::string& device : devices) options.limits[device] = budget_of(setup, device);
  return options;
}

std::optional<Rehearsal> try_rehearsal(const Job& job, const Setup& setup, RehearsalOptions options) {
  options.max_held = 0;  // the least that would do
  try {
    return rehearse(job, setup, options);
  } catch (const DeviceError&) {
    return std::nullopt;
  }
}

[[noreturn]] void refuse(const Job& job, const Setup& setup, const std::vector<Waiting>& places) {
  RehearsalOptions least = options_for(setup, places.back(), false, false);
  least.max_held = 0;
  least.sequences_at_once = 1;
  const Rehearsal needed = rehearse(job, setup, least);
  const int64_t base = setup.process_bytes + setup.reserve_bytes;
  std::string what;
  bool host_is_short = false;
  for (const auto& [device, peak] : needed.peaks) {
    const int64_t needs = device == "cpu" ? peak + base : peak, limit = setup.resources.limit_of(device);
    if (limit == 0 || needs <= limit) continue;
    host_is_short = host_is_short || device == "cpu";
    what += cat(what.empty() ? "" : "; ", device, " may use ", format_bytes(static_cast<double>(limit)), " (", limit,
                " bytes), and this run needs at least ", format_bytes(static_cast<double>(needs)), " (", needs,
                " bytes) there");
  }
  std::string out = "give it more with --max-memory";
  if (host_is_short && places.back().place != StatePlace::spill && job.recipe.method == Method::gptq) {
    least.states = StatePlace::spill;
    least.keeps_inputs = true;
    const int64_t spilled = rehearse(job, setup, least).peaks.at("cpu") + base;
    if (spilled < needed.peaks.at("cpu") + base)
      out += cat(", or name a --spill-dir for the states (then ", format_bytes(static_cast<double>(spilled)),
                 " of memory do)");
  }
  throw InputError(cat("not enough memory: ", what, ": ", out,
                       ", or take fewer --samples, a shorter --sequence-length or --batch-size 1"));
}

// The seconds by stage as users read them: the device's work, and what the host does beside it where it is longer.
void estimate_time(const Job& job, const Setup& setup, const Speeds& speeds, const Rehearsal& rehearsal, Plan& plan) {
  std::map<std::string, double> stages = speeds.seconds(rehearsal.calls);
  const double moving = static_cast<double>(rehearsal.state_bytes_moved) * speeds.seconds_per_byte();
  if (moving > 0) stages[kMovingStage] = moving;
  double computing = 0;
  for (const auto& [stage, seconds] : stages) computing += seconds;

  const double read_rate =
      job.max_read_rate > 0 ? std::min(kReadRate, static_cast<double>(job.max_read_rate)) : kReadRate;
  const double read = static_cast<double>(plan.source_bytes) / read_rate;
  const double blocks = static_cast<double>(setup.config.blocks);
  const double writing = static_cast<double>(plan.output_bytes) / kWriteRate;
  stages["pack and write"] += 0.05 + std::max(0.0, writing - computing);
  stages["read"] = read / blocks + std::max(0.0, read - computing);
  if (job.recipe.method == Method::gptq) {
    std::error_code error;
    double text = static_cast<double>(fs::file_size(setup.calibration.file, error));
    if (error) text = 0;
    const auto tokenizer = fs::file_size(setup.checkpoint->folder() / "tokenizer.json", error);
    if (setup.calibration.file.ends_with(".txt") && !error) text += static_cast<double>(tokenizer);
    stages[kCalibrationStage] += text / kTokenizeRate;
  }
  plan.stage_seconds.insert(plan.stage_seconds.end(), stages.begin(), stages.end());
  for (const auto& [stage, seconds] : plan.stage_seconds) plan.seconds += seconds;
  std::sort(plan.stage_seconds.begin(), plan.stage_seconds.end(),
            [](const auto& a, const auto& b) { return a.second > b.second; });
}

}  // namespace

std::string_view name_of(StatePlace place) {
  switch (place) {
    case StatePlace::host:
      return "host";
    case StatePlace::spill:
      return "spill";
    case StatePlace::device:
      break;
  }
  return "device";
}

int64_t budget_of(const Setup& setup, const std::string& device) {
  const int64_t limit = setup.resources.limit_of(device);
  if (device != "cpu" || limit == 0) return limit;
  return std::max<int64_t>(1, limit - setup.process_bytes - setup.reserve_bytes);
}

Plan make_plan(const Job& job, Setup& setup, bool with_time) {
  Placement& placement = setup.placement;
  Plan plan{.model = job.model, .output = job.output, .device_map = placement.map};
  plan.source_bytes = static_cast<int64_t>(setup.checkpoint->bytes());
  plan.output_bytes = setup.output_bytes;
  plan.quantized_weights = setup.quantized_weights;
  plan.bits_per_weight = setup.bits_per_weight;
  plan.compute_dtype = name_of(setup.precision.computed);
  plan.checkpoint_format = setup.format->name();
  if (!setup.widths.empty()) {
    std::string widths;
    for (const int width : setup.widths) widths += cat(widths.empty() ? "" : ", ", width);
    plan.messages.push_back(cat("bits: chosen step by step of ", widths, " for ", job.recipe.average_bits,
                                " on average; sizes and times are those of the average"));
  }
  for (const Notice& notice : setup.notices)
    (notice.kind == Progress::Kind::warning ? plan.warnings : plan.messages).push_back(notice.text);

  // Before memory is looked at: trying ops fills the buffers that they keep.
  const Stopwatch trying;
  Speeds speeds;
  const Calls calls = rehearse(job, setup, {}).calls;
  auto backend = open_backend(placement.devices[0], {.threads = job.threads});
  if (with_time) {
    speeds = Speeds(*backend, calls, 0.4);
    plan.stage_seconds.emplace_back("plan", trying.seconds());  // a run begins with it
  }
  const int64_t scratch = scratch_of(*backend, calls);
  backend.reset();  // what it took for trying goes to the run
  setup.process_bytes =
      resident_bytes() - host_bytes_kept() + kSlack + (with_time ? 0 : threads_of(job) * kBytesPerThread) + scratch;
  setup.reserve_bytes = kReserve + threads_of(job) * kReservePerThread;

  const std::vector<Waiting> places = places_for(job, setup);
  std::optional<Rehearsal> least;
  for (const bool read_ahead : {true, false}) {
    for (const Waiting& states : places) {
      if (least) break;
      least = try_rehearsal(job, setup, options_for(setup, states, read_ahead, true));
      placement.states = states.place;
      placement.keeps_inputs = states.keeps_inputs;
      placement.read_ahead = read_ahead;
    }
  }
  if (!least) refuse(job, setup, places);
  const Rehearsal expected =
      rehearse(job, setup, options_for(setup, {placement.states, placement.keeps_inputs}, placement.read_ahead, true));

  if (with_time) estimate_time(job, setup, speeds, expected, plan);

  const auto description_of = [&](const std::string& name) -> std::string {
    for (const DeviceInfo& device : setup.resources.machine.accelerators) {
      if (device.name == name) return device.description;
    }
    return name.starts_with("sim") ? "simulated accelerator" : setup.resources.machine.cpu.description;
  };
  for (const std::string& name : placement.devices) {
    if (name == "cpu") continue;
    plan.accelerators.push_back({name, description_of(name), expected.peaks.at(name), setup.resources.limit_of(name)});
  }
  plan.host = {"cpu", setup.resources.machine.cpu.description, expected.peaks.at("cpu") + setup.process_bytes,
               setup.resources.limit_of("cpu")};
  if (plan.host.peak_bytes > setup.resources.machine.cpu.free_bytes) {
    plan.warnings.push_back(
        cat("the run takes ", format_bytes(static_cast<double>(plan.host.peak_bytes)), " of memory, and ",
            format_bytes(static_cast<double>(setup.resources.machine.cpu.free_bytes)), " are free now"));
  }
  for (const Placement::Unit& unit : placement.units)
    plan.units.push_back({unit.module, unit.computes_on, unit.stays, unit.bytes, unit.visits});
  plan.states = name_of(placement.states);
  plan.keeps_inputs = placement.keeps_inputs;
  plan.read_ahead = placement.read_ahead;
  plan.sequences = expected.sequences;
  plan.tokens = expected.tokens;
  plan.sequences_at_once = std::min(expected.sequences_at_once, expected.sequences);
  if (placement.states == StatePlace::spill) {
    const int64_t streams = wants_original_states(job.recipe) ? 2 : 1;
    plan.spill_bytes = streams * expected.tokens * state_bytes(setup).both();
  }
  plan.loaders = loader_verdicts(
      *setup.format, setup.widths.empty() ? setup.linears : mixture(job, setup.widths, setup.config), setup.config);
  return plan;
}

std::string short_form(const Plan& plan) {
  const auto bytes = [](int64_t count) { return format_bytes(static_cast<double>(count)); };
  std::string text = plan.sequences > 0 ? cat("plan: ", plan.sequences, " sequences") : "plan: rounding";
  if (plan.seconds > 0) text += cat(", about ", static_cast<int64_t>(std::ceil(plan.seconds)), " s");
  for (const Plan::Device& device : plan.accelerators) text += cat(", ", bytes(device.peak_bytes), " on ", device.name);
  text += cat(", ", bytes(plan.host.peak_bytes), " of memory");
  if (plan.spill_bytes > 0) text += cat(", ", bytes(plan.spill_bytes), " spilled");
  return text + cat(", output ", bytes(plan.output_bytes));
}

Plan plan(const Job& job) {
  Setup setup = set_up(job);
  return make_plan(job, setup, true);
}

}  // namespace gptq
