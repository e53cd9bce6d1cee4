// Plans and reports as JSON.
#include <algorithm>
#include <map>

#include <nlohmann/json.hpp>

#include "gptq/gptq.h"
#include "io/checkpoint.h"
#include "recipe/recipe_file.h"
#include "report/linear_json.h"

namespace gptq {
namespace {

template <typename Items, typename Render>
Json list_of(const Items& items, const Render& render) {
  Json list = Json::array();
  for (const auto& item : items) list.push_back(render(item));
  return list;
}

// Pairs of a name and a figure.
template <typename Pairs>
Json object_of(const Pairs& pairs) {
  Json object = Json::object();
  for (const auto& [name, value] : pairs) object[name] = value;
  return object;
}

Json json_of(const Plan::Device& device) {
  return {{"name", device.name},
          {"description", device.description},
          {"peak_bytes", device.peak_bytes},
          {"limit_bytes", device.limit_bytes}};
}

Json json_of(const Plan::Unit& unit) {
  return {{"module", unit.module},
          {"computes_on", unit.computes_on},
          {"stays", unit.stays},
          {"bytes", unit.bytes},
          {"visits", unit.visits}};
}

Json json_of(const LoaderVerdict& verdict) {
  return {{"loader", verdict.loader}, {"accepts", verdict.accepts}, {"reason", verdict.reason}};
}

Json json_of(const Plan& plan) {
  return {{"model", plan.model},
          {"output", plan.output},
          {"device_map", Json::parse(plan.device_map)},
          {"compute_dtype", plan.compute_dtype},
          {"checkpoint_format", plan.checkpoint_format},
          {"states", plan.states},
          {"keeps_inputs", plan.keeps_inputs},
          {"read_ahead", plan.read_ahead},
          {"accelerators", list_of(plan.accelerators, [](const auto& device) { return json_of(device); })},
          {"host", json_of(plan.host)},
          {"sequences", plan.sequences},
          {"tokens", plan.tokens},
          {"sequences_at_once", plan.sequences_at_once},
          {"spill_bytes", plan.spill_bytes},
          {"saved_states_bytes", plan.saved_states_bytes},
          {"source_bytes", plan.source_bytes},
          {"output_bytes", plan.output_bytes},
          {"quantized_weights", plan.quantized_weights},
          {"bits_per_weight", plan.bits_per_weight},
          {"seconds", plan.seconds},
          {"stage_seconds", object_of(plan.stage_seconds)},
          {"units", list_of(plan.units, [](const auto& unit) { return json_of(unit); })},
          {"loaders", list_of(plan.loaders, [](const auto& verdict) { return json_of(verdict); })},
          {"messages", plan.messages},
          {"warnings", plan.warnings}};
}

// Each block with experts: the tokens that each of them saw, and those that saw too few.
Json experts_of(const Report& report) {
  std::map<int64_t, std::map<int64_t, const LinearReport*>> blocks;
  for (const LinearReport& linear : report.linears) {
    if (linear.expert >= 0 && linear.routed >= 0) blocks[linear.block][linear.expert] = &linear;
  }
  Json experts = Json::array();
  for (const auto& [block, found] : blocks) {
    Json tokens = Json::array(), few = Json::array();
    for (const auto& [expert, linear] : found) {
      tokens.push_back(linear->routed);
      if (linear->routed < std::min(linear->tokens, report.recipe.expert_tokens)) few.push_back(expert);
    }
    experts.push_back({{"block", block}, {"tokens", tokens}, {"quantized_with_all_tokens", few}});
  }
  return experts;
}

Json json_of(const BitChoice& choice) {
  Json divergence = Json::object();
  for (const auto& [bits, value] : choice.divergence) divergence[std::to_string(bits)] = value;
  return {{"linears", choice.linears}, {"bits", choice.bits}, {"divergence", divergence}};
}

Json json_of(const Report::DeviceUse& device) {
  const auto op_json = [](const auto& op) -> Json {
    return {{"stage", op.stage}, {"op", op.op}, {"seconds", op.seconds}};
  };
  return {{"name", device.name},
          {"peak_bytes", device.peak_bytes},
          {"uploaded_bytes", device.uploaded_bytes},
          {"downloaded_bytes", device.downloaded_bytes},
          {"op_seconds", list_of(device.op_seconds, op_json)}};
}

Json json_of(const Report::Visit& visit) {
  return {
      {"module", visit.module}, {"device", visit.device}, {"bytes_in", visit.bytes_in}, {"bytes_out", visit.bytes_out}};
}

Json json_of(const Report::Trim& trim) {
  return {{"after", trim.when},
          {"device", trim.device},
          {"held_before", trim.held_before},
          {"held_after", trim.held_after}};
}

Json json_of(const std::optional<Check>& check) {
  if (!check) return nullptr;
  Json json = {{"sequences", check->sequences}, {"held_back", check->held_back}, {"difference", check->difference}};
  if (check->tokens == 0) return json;
  json["tokens"] = check->tokens;
  json["mean_kl"] = check->mean_kl;
  json["same_top"] = check->same_top;
  json["model_nll"] = check->model_nll;
  json["quantized_nll"] = check->quantized_nll;
  json["frequency_nll"] = check->frequency_nll;
  return json;
}

// Paths may hold bytes that are no UTF-8.
std::string text_of(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace); }

}  // namespace

std::string to_json(const Plan& plan) { return text_of(json_of(plan)); }

std::string to_json(const Report& report) {
  const auto render = [](const auto& item) { return json_of(item); };
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
                     {"bit_choices", list_of(report.bit_choices, render)},
                     {"sequences", report.sequences},
                     {"tokens", report.tokens},
                     {"dropped_rows", report.dropped_rows},
                     {"resumed_parts", report.resumed_parts},
                     {"skipped", report.skipped},
                     {"source_bytes", report.source_bytes},
                     {"output_bytes", report.output_bytes},
                     {"quantized_weights", report.quantized_weights},
                     {"bits_per_weight", report.bits_per_weight},
                     {"seconds", report.seconds},
                     {"cpu_seconds", report.cpu_seconds},
                     {"peak_memory_bytes", report.peak_memory_bytes},
                     {"stage_seconds", object_of(report.stage_seconds)},
                     {"fallbacks", object_of(report.fallbacks)},
                     {"devices", list_of(report.devices, render)},
                     {"visits", list_of(report.visits, render)},
                     {"cleared_caches", list_of(report.trims, render)},
                     {"spill_bytes", report.spill_bytes},
                     {"check", json_of(report.check)},
                     {"plan", json_of(report.plan)},
                     {"warnings", report.warnings},
                     {"experts", experts_of(report)},
                     {"linears", list_of(report.linears, [](const auto& linear) { return to_json(linear); })}};
  return text_of(json);
}

}  // namespace gptq
