// Plans and reports as JSON.
#include <algorithm>
#include <map>

#include "gptq/gptq.h"
#include "io/checkpoint.h"
#include "recipe/recipe_file.h"

namespace gptq {

namespace {

Json json_of(const Plan& plan) {
  const auto device_json = [](const Plan::Device& device) -> Json {
    return {{"name", device.name},
            {"description", device.description},
            {"peak_bytes", device.peak_bytes},
            {"limit_bytes", device.limit_bytes}};
  };
  Json accelerators = Json::array(), units = Json::array(), loaders = Json::array(), stages = Json::object();
  for (const Plan::Device& device : plan.accelerators) accelerators.push_back(device_json(device));
  for (const Plan::Unit& unit : plan.units) {
    units.push_back({{"module", unit.module},
                     {"computes_on", unit.computes_on},
                     {"stays", unit.stays},
                     {"bytes", unit.bytes},
                     {"visits", unit.visits}});
  }
  for (const LoaderVerdict& verdict : plan.loaders)
    loaders.push_back({{"loader", verdict.loader}, {"accepts", verdict.accepts}, {"reason", verdict.reason}});
  for (const auto& [stage, seconds] : plan.stage_seconds) stages[stage] = seconds;
  return {{"model", plan.model},
          {"output", plan.output},
          {"device_map", Json::parse(plan.device_map)},
          {"compute_dtype", plan.compute_dtype},
          {"checkpoint_format", plan.checkpoint_format},
          {"states", plan.states},
          {"keeps_inputs", plan.keeps_inputs},
          {"read_ahead", plan.read_ahead},
          {"accelerators", accelerators},
          {"host", device_json(plan.host)},
          {"sequences", plan.sequences},
          {"tokens", plan.tokens},
          {"sequences_at_once", plan.sequences_at_once},
          {"spill_bytes", plan.spill_bytes},
          {"source_bytes", plan.source_bytes},
          {"output_bytes", plan.output_bytes},
          {"quantized_weights", plan.quantized_weights},
          {"bits_per_weight", plan.bits_per_weight},
          {"seconds", plan.seconds},
          {"stage_seconds", stages},
          {"units", units},
          {"loaders", loaders},
          {"messages", plan.messages},
          {"warnings", plan.warnings}};
}

}  // namespace

std::string to_json(const Plan& plan) { return json_of(plan).dump(2); }

std::string to_json(const Report& report) {
  Json linears = Json::array();
  for (const LinearReport& linear : report.linears) {
    Json losses = Json::array();
    for (const auto& [stage, loss] : linear.stages) losses.push_back({{"stage", stage}, {"loss", loss}});
    linears.push_back({{"name", linear.name},
                       {"out_features", linear.rows},
                       {"in_features", linear.cols},
                       {"bits", linear.bits},
                       {"group_size", linear.group_size},
                       {"loss", linear.loss},
                       {"error", linear.error},
                       {"loss_after", losses},
                       {"target_shift", linear.target_shift},
                       {"tokens", linear.tokens},
                       {"routed_tokens", linear.routed < 0 ? Json(nullptr) : Json(linear.routed)},
                       {"scales",
                        {{"least", linear.scales.least},
                         {"median", linear.scales.median},
                         {"largest", linear.scales.largest},
                         {"negative", linear.scales.negative}}},
                       {"damp_percent", linear.damp_percent},
                       {"dead_columns", linear.dead_columns}});
  }
  // Of each block with experts: the tokens each of them saw, and those that saw too few.
  std::map<int64_t, std::map<int64_t, const LinearReport*>> experts_of;
  for (const LinearReport& linear : report.linears) {
    if (linear.expert >= 0 && linear.routed >= 0) experts_of[linear.block][linear.expert] = &linear;
  }
  Json experts = Json::array();
  for (const auto& [block, found] : experts_of) {
    Json tokens = Json::array(), few = Json::array();
    for (const auto& [expert, linear] : found) {
      tokens.push_back(linear->routed);
      if (linear->routed < std::min(linear->tokens, report.recipe.expert_tokens)) few.push_back(expert);
    }
    experts.push_back({{"block", block}, {"tokens", tokens}, {"quantized_with_all_tokens", few}});
  }
  Json choices = Json::array();
  for (const BitChoice& choice : report.bit_choices) {
    Json divergence = Json::object();
    for (const auto& [bits, value] : choice.divergence) divergence[std::to_string(bits)] = value;
    choices.push_back({{"linears", choice.linears}, {"bits", choice.bits}, {"divergence", divergence}});
  }
  Json stages = Json::object(), fallbacks = Json::object();
  for (const auto& [stage, seconds] : report.stage_seconds) stages[stage] = seconds;
  for (const auto& [op, count] : report.fallbacks) fallbacks[op] = count;
  Json devices = Json::array(), visits = Json::array(), trims = Json::array();
  for (const Report::DeviceUse& device : report.devices) {
    Json ops = Json::array();
    for (const auto& [stage, op, seconds] : device.op_seconds)
      ops.push_back({{"stage", stage}, {"op", op}, {"seconds", seconds}});
    devices.push_back({{"name", device.name},
                       {"peak_bytes", device.peak_bytes},
                       {"uploaded_bytes", device.uploaded_bytes},
                       {"downloaded_bytes", device.downloaded_bytes},
                       {"op_seconds", ops}});
  }
  for (const Report::Visit& visit : report.visits) {
    visits.push_back({{"module", visit.module},
                      {"device", visit.device},
                      {"bytes_in", visit.bytes_in},
                      {"bytes_out", visit.bytes_out}});
  }
  for (const Report::Trim& trim : report.trims) {
    trims.push_back({{"after", trim.when},
                     {"device", trim.device},
                     {"held_before", trim.held_before},
                     {"held_after", trim.held_after}});
  }
  const Json json = {{"version", version()},
                     {"model", report.model},
                     {"output", report.output},
                     {"device", report.device},
                     {"device_map", Json::parse(report.device_map)},
                     {"states", report.states},
                     {"compute_dtype", report.compute_dtype},
                     {"checkpoint_format", report.checkpoint_format},
                     {"recipe", to_json(report.recipe)},
                     {"average_bits", report.average_bits},
                     {"bit_choices", choices},
                     {"sequences", report.sequences},
                     {"tokens", report.tokens},
                     {"dropped_rows", report.dropped_rows},
                     {"source_bytes", report.source_bytes},
                     {"output_bytes", report.output_bytes},
                     {"quantized_weights", report.quantized_weights},
                     {"bits_per_weight", report.bits_per_weight},
                     {"seconds", report.seconds},
                     {"cpu_seconds", report.cpu_seconds},
                     {"peak_memory_bytes", report.peak_memory_bytes},
                     {"stage_seconds", stages},
                     {"fallbacks", fallbacks},
                     {"devices", devices},
                     {"visits", visits},
                     {"cleared_caches", trims},
                     {"spill_bytes", report.spill_bytes},
                     {"plan", json_of(report.plan)},
                     {"warnings", report.warnings},
                     {"experts", experts},
                     {"linears", linears}};
  return json.dump(2);
}

}  // namespace gptq
