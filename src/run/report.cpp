// The report of a run as JSON.
#include <algorithm>

#include "gptq/gptq.h"
#include "io/checkpoint.h"
#include "quant/recipe.h"

namespace gptq {

std::string to_json(const Report& report) {
  const Recipe& recipe = report.recipe;
  Json linears = Json::array();
  for (const LinearReport& linear : report.linears) {
    linears.push_back({{"name", linear.name},
                       {"out_features", linear.rows},
                       {"in_features", linear.cols},
                       {"bits", linear.bits},
                       {"group_size", linear.group_size},
                       {"loss", linear.loss},
                       {"error", linear.error},
                       {"damp_percent", linear.damp_percent},
                       {"dead_columns", linear.dead_columns}});
  }
  Json stages = Json::object(), fallbacks = Json::object();
  for (const auto& [stage, seconds] : report.stage_seconds) stages[stage] = seconds;
  for (const auto& [op, count] : report.fallbacks) fallbacks[op] = count;
  const Json json = {{"version", version()},
                     {"model", report.model},
                     {"output", report.output},
                     {"device", report.device},
                     {"compute_dtype", report.compute_dtype},
                     {"checkpoint_format", report.checkpoint_format},
                     {"recipe",
                      {{"method", name_of(recipe.method)},
                       {"bits", recipe.bits},
                       {"group_size", recipe.group_size},
                       {"sym", recipe.sym},
                       {"scale_search", name_of(recipe.scale_search)},
                       {"order", name_of(recipe.order)},
                       {"static_groups", recipe.static_groups},
                       {"desc_act", recipe.desc_act},
                       {"damp_percent", recipe.damp_percent},
                       {"true_sequential", recipe.true_sequential}}},
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
                     {"warnings", report.warnings},
                     {"linears", linears}};
  return json.dump(2);
}

}  // namespace gptq
