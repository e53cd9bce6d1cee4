// gptq plan: what it prints.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "commands.h"
#include "options.h"
#include "printing.h"
#include "terminal.h"

namespace gptq {
namespace {

using Json = nlohmann::ordered_json;

void print_plan(const Plan& plan) {
  const auto bytes = [](int64_t count) { return format_bytes(static_cast<double>(count)); };
  for (const std::string& text : plan.messages) print("%s\n", text);
  for (const std::string& text : plan.warnings) print("warning: %s\n", text);
  print("\n%-26s %-12s %-28s %10s\n", "module", "computes on", "stays", "weights");
  // Neighbours that differ in their number only are one line.
  for (size_t i = 0; i < plan.units.size();) {
    const Plan::Unit& first = plan.units[i];
    const std::string stem = first.module.substr(0, first.module.rfind('.') + 1);
    size_t end = i + 1;
    int64_t total = first.bytes;
    const auto is_block = [&](const Plan::Unit& unit) {
      return unit.module.starts_with(stem) &&
             unit.module.find_first_not_of("0123456789", stem.size()) == std::string::npos;
    };
    for (; end < plan.units.size() && is_block(first) && is_block(plan.units[end]) &&
           plan.units[end].computes_on == first.computes_on && plan.units[end].stays == first.stays;
         ++end)
      total += plan.units[end].bytes;
    const std::string name =
        end - i == 1 ? first.module : first.module + " ... " + plan.units[end - 1].module.substr(stem.size());
    const std::string stays = first.visits            ? "cpu, visits " + first.computes_on
                              : first.stays == "disk" ? "checkpoint"
                                                      : "checkpoint, streams";
    print("%-26s %-12s %-28s %10s\n", name, first.computes_on, stays, bytes(total));
    i = end;
  }
  print("\ncalibration  %lld sequences, %lld tokens; states wait %s\n", static_cast<long long>(plan.sequences),
        static_cast<long long>(plan.tokens),
        plan.states == "spill"  ? "in a spill file of " + bytes(plan.spill_bytes)
        : plan.states == "host" ? "in host memory"
                                : "where they are computed");
  const auto print_memory = [&](const Plan::Device& device) {
    print("%-12s peak %s%s (%s)\n", device.name, bytes(device.peak_bytes),
          device.limit_bytes > 0 ? (" of " + bytes(device.limit_bytes)) : "", device.description);
  };
  for (const Plan::Device& device : plan.accelerators) print_memory(device);
  print_memory(plan.host);
  print("weights      %s -> %s on disk (%lld bytes), %.3f bits per weight, %s%s\n", bytes(plan.source_bytes),
        bytes(plan.output_bytes), static_cast<long long>(plan.output_bytes), plan.bits_per_weight,
        plan.checkpoint_format, plan.read_ahead ? "" : "; blocks are not read ahead, for want of memory");
  if (plan.saved_states_bytes > 0)
    print("saved states up to %s on disk until the output is whole\n", bytes(plan.saved_states_bytes));
  print("time         about %s:", format_seconds(plan.seconds));
  for (const auto& [stage, seconds] : plan.stage_seconds) print(" %s %.1f s,", stage, seconds);
  print(" in %s\n", plan.compute_dtype);
  for (const LoaderVerdict& verdict : plan.loaders) {
    print("  %-34s %s%s%s\n", verdict.loader, verdict.accepts ? "yes" : "no", verdict.reason.empty() ? "" : ": ",
          verdict.reason);
  }
}

Plan plan_of(const QuantizeOptions& options, const std::stop_token& stop) {
  Job job = make_job(options);
  refuse_to_replace_inputs(options, job);
  job.stop = stop;
  Plan result = plan(job);
  spell_flags(result);
  return result;
}

// Time, memory and disk of each preset, with all other options as given.
void run_plan_of_presets(QuantizeOptions options, const std::stop_token& stop) {
  Json rows = Json::array();
  if (!options.json) print("%-12s %10s %12s %12s %10s\n", "preset", "time", "device", "memory", "output");
  for (const char* preset : {"default", "best", "paper", "group-aware"}) {
    options.preset = preset;
    const Plan result = plan_of(options, stop);
    int64_t device = 0;  // the fullest
    for (const Plan::Device& accelerator : result.accelerators) device = std::max(device, accelerator.peak_bytes);
    if (options.json) {
      rows.push_back({{"preset", preset}, {"plan", Json::parse(to_json(result))}});
      continue;
    }
    const auto bytes = [](int64_t count) { return format_bytes(static_cast<double>(count)); };
    print("%-12s %10s %12s %12s %10s\n", preset, format_seconds(result.seconds), device > 0 ? bytes(device) : "-",
          bytes(result.host.peak_bytes), bytes(result.output_bytes));
  }
  if (options.json) print_json(text_of(rows));
}

}  // namespace

void run_plan(const QuantizeOptions& options, std::stop_token stop) {
  if (options.presets) return run_plan_of_presets(options, stop);
  const Plan result = plan_of(options, stop);
  options.json ? print_json(to_json(result)) : print_plan(result);
}

}  // namespace gptq
