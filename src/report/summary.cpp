#include "report/summary.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "quant/observer.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

// Average bits per weight in the blocks.
double average_bits(const Facts& facts, const Layout& layout) {
  const std::string head = head_spec(facts.config).name;
  double bits = 0, weights = 0;
  for (const auto& [name, linear] : layout.quantized) {
    if (name == head) continue;
    const auto size = static_cast<double>(linear.spec.in_features * linear.spec.out_features);
    weights += size;
    bits += size * linear.recipe.bits;
  }
  return weights > 0 ? bits / weights : 0;
}

std::string rounded(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

// The largest mean KL that codes of these widths should cost.
double largest_kl(const std::vector<LinearReport>& linears) {
  double bits = 0, weights = 0;
  for (const LinearReport& linear : linears) {
    const auto size = static_cast<double>(linear.rows * linear.cols);
    weights += size;
    bits += size * linear.bits;
  }
  return std::exp2(5.5 - 1.7 * bits / std::max(weights, 1.0));
}

}  // namespace

void describe_job(Report& report, const Job& job, const Facts& facts, const Layout& layout) {
  report.model = job.model;
  report.output = job.output;
  report.recipe = resolve(job.recipe);
  report.checkpoint_format = facts.format->name();
  report.compute_dtype = name_of(facts.precision.computed);
  report.device_map = facts.placement.map;
  report.states = report.plan.states;
  report.quantized_weights = layout.quantized_weights;
  report.bits_per_weight = layout.bits_per_weight;
  report.average_bits = average_bits(facts, layout);
  report.source_bytes = static_cast<int64_t>(facts.checkpoint->bytes());
}

// A single device with its own clock is more accurate than the host, which only queues work: then the host's part is
// the time before the device's first work and after its last.
std::vector<std::pair<std::string, double>> stage_seconds(std::map<std::string, double> host,
                                                          const std::vector<Report::DeviceUse>& devices) {
  if (const auto embedding = host.find(kEmbeddingStage); embedding != host.end()) {
    host[kCalibrationStage] += embedding->second;
    host.erase(embedding);
  }
  const Report::DeviceUse* clock = nullptr;
  for (const Report::DeviceUse& device : devices) {
    if (!device.op_seconds.empty()) clock = devices.size() == 1 ? &device : nullptr;
  }
  if (clock == nullptr) return {host.begin(), host.end()};
  std::map<std::string, double> stages;
  for (const char* stage : {kSetupStage, kPlanStage, kCalibrationStage, kCommitStage}) stages[stage] = host[stage];
  for (const auto& [stage, op, seconds] : clock->op_seconds) {
    if (stage == kEmbeddingStage) continue;  // included in kCalibrationStage, where the host waits for it
    const bool feedback = stage == "columns" && op == "linear";
    const bool moving = stage.empty() && (op == "upload" || op == "download");
    stages[op == "idle" || op == "attention" ? op : feedback ? "feedback" : moving ? kMovingStage : stage] += seconds;
  }
  return {stages.begin(), stages.end()};
}

std::string expert_tokens_message(const std::vector<LinearReport>& linears) {
  std::vector<int64_t> routed;
  for (const LinearReport& linear : linears)
    if (linear.routed >= 0) routed.push_back(linear.routed);
  if (routed.empty()) return "";
  std::sort(routed.begin(), routed.end());
  return cat("experts: ", routed.front(), " to ", routed.back(), " tokens each, half of them at most ",
             routed[routed.size() / 2]);
}

std::string dead_columns_warning(const std::vector<LinearReport>& linears, const Recipe& recipe) {
  int64_t columns = 0, count = 0;
  for (const LinearReport& linear : linears) {
    columns += linear.dead_columns;
    count += linear.dead_columns > 0 ? 1 : 0;
  }
  if (columns == 0) return "";
  return cat(columns, columns == 1 ? " input column of " : " input columns of ", count,
             count == 1 ? " linear was" : " linears were", " not activated by any calibration token and ",
             recipe.round_dead_columns ? "rounded to nearest" : "set to zero", "; take more `samples`");
}

std::string few_tokens_warning(const std::vector<LinearReport>& linears, const Recipe& recipe) {
  constexpr size_t kNamed = 8;
  if (recipe.moe_calibrate_all_experts) return "";
  std::vector<std::string> few;
  for (const LinearReport& linear : linears)
    if (linear.routed >= 0 && linear.routed < linear.tokens) few.push_back(cat(linear.name, " (", linear.routed, ")"));
  if (few.empty()) return "";
  std::string names;
  for (size_t i = 0; i < std::min(few.size(), kNamed); ++i) names += cat(i == 0 ? "" : ", ", few[i]);
  if (few.size() > kNamed) names += cat(" and ", few.size() - kNamed, " more, which the report lists");
  return cat(few.size(), " linears of experts saw fewer than ", recipe.expert_tokens,
             " tokens and were quantized with what they would do to all tokens: ", names,
             "; take more `samples`, or `moe_calibrate_all_experts`");
}

std::vector<Notice> check_notices(const Check& check, const std::vector<LinearReport>& linears) {
  std::vector<Notice> notices;
  const auto warn = [&](const auto&... text) { notices.push_back({Level::warning, cat("check: ", text...)}); };
  if (check.tokens > 0) {
    notices.push_back({Level::message,
                       cat("check: KL ", rounded(check.mean_kl), ", loss ", rounded(check.model_nll), " -> ",
                           rounded(check.quantized_nll), ", same next token ", rounded(100 * check.same_top), " % of ",
                           check.tokens, check.held_back ? " held-back tokens" : " tokens of the calibration")});
  }
  // They are the same bit for bit where the run's kernels run again, and within rounding of bf16 elsewhere.
  constexpr double kRounding = 0.02;
  if (!(check.difference <= kRounding)) {
    warn("the output does not compute what was quantized: its states or logits differ by ",
         rounded(100 * check.difference), " %; do not use it, and please report this with the model's config.json");
  }
  if (check.tokens == 0) return notices;
  if (const double limit = largest_kl(linears); !(check.mean_kl <= limit)) {
    warn("KL ", rounded(check.mean_kl), " is more than the ", rounded(limit),
         " that these bits should cost at most: compare the output with `gptq compare` on another text before you "
         "use it, give it more `samples`, or more bits");
  }
  if (!(check.model_nll <= check.frequency_nll)) {
    warn("the original model predicts the calibration's text worse (loss ", rounded(check.model_nll),
         ") than the frequencies of its tokens do (", rounded(check.frequency_nll),
         "): the text is not of its language, its weights are not trained, or they are not read as they should be");
  }
  return notices;
}

}  // namespace gptq
