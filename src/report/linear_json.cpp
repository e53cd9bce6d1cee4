#include "report/linear_json.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "io/json_numbers.h"

namespace gptq {

Json to_json(const LinearReport& linear) {
  Json stages = Json::array();
  for (const auto& [stage, loss] : linear.stages) stages.push_back({{"stage", stage}, {"loss", loss}});
  return {{"name", linear.name},
          {"out_features", linear.rows},
          {"in_features", linear.cols},
          {"bits", linear.bits},
          {"group_size", linear.group_size},
          {"loss", linear.loss},
          {"error", linear.error},
          {"loss_after", stages},
          {"target_shift", linear.target_shift},
          {"tokens", linear.tokens},
          {"routed_tokens", linear.routed < 0 ? Json(nullptr) : Json(linear.routed)},
          {"scales",
           {{"least", linear.scales.least},
            {"median", linear.scales.median},
            {"largest", linear.scales.largest},
            {"negative", linear.scales.negative}}},
          {"damp_percent", linear.damp_percent},
          {"dead_columns", linear.dead_columns}};
}

LinearReport parse_linear_report(const Json& json) {
  // Infinite and NaN losses are null in JSON.
  const auto number = [](const Json& value) { return value.is_null() ? NAN : value.get<double>(); };
  LinearReport linear{
      .name = json.at("name"),
      .rows = whole_number<int64_t>(json.at("out_features")),
      .cols = whole_number<int64_t>(json.at("in_features")),
      .bits = whole_number<int>(json.at("bits")),
      .group_size = whole_number<int64_t>(json.at("group_size")),
      .loss = number(json.at("loss")),
      .error = number(json.at("error")),
      .target_shift = number(json.at("target_shift")),
      .tokens = whole_number<int64_t>(json.at("tokens")),
      .routed = json.at("routed_tokens").is_null() ? -1 : whole_number<int64_t>(json.at("routed_tokens")),
      .damp_percent = json.at("damp_percent"),
      .dead_columns = whole_number<int64_t>(json.at("dead_columns"))};
  for (const Json& stage : json.at("loss_after"))
    linear.stages.emplace_back(stage.at("stage"), number(stage.at("loss")));
  const Json& scales = json.at("scales");
  linear.scales = {scales.at("least"), scales.at("median"), scales.at("largest"), scales.at("negative")};
  return linear;
}

}  // namespace gptq
