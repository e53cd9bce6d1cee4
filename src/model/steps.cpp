// The linears and float parts of a block by name and size, and which states and weights its steps need.
#include <algorithm>

#include "base/error.h"
#include "model/block.h"

namespace gptq {

std::string module_path(const ModelConfig& config, std::string_view module) {
  return config.root.empty() ? std::string(module) : cat(config.root, ".", module);
}

std::string block_module(const ModelConfig& config, int64_t index) {
  return cat(module_path(config, config.architecture->blocks), ".", index);
}

StepSpecs step_specs(const ModelConfig& config, int64_t block) {
  const Architecture& row = *config.architecture;
  const std::string prefix = block_module(config, block) + ".";
  const int64_t q_width = config.heads * config.head_dim, kv_width = config.kv_heads * config.head_dim;
  const auto spec = [&](StepKind step, std::string_view name, int64_t out, int64_t in, bool bias,
                        std::string_view fused = {}) {
    return LinearSpec{.name = prefix + std::string(name),
                      .out_features = out,
                      .in_features = in,
                      .bias = bias,
                      .fused = fused.empty() ? "" : prefix + std::string(fused),
                      .step = step,
                      .transposed = row.transposed};
  };
  StepSpecs steps(4);
  const auto in = StepKind::attention_in, mlp = StepKind::mlp_in;
  if (row.qkv.empty()) {
    steps[0] = {spec(in, row.q, q_width, config.hidden, config.q_bias, row.fused_qkv),
                spec(in, row.k, kv_width, config.hidden, config.kv_bias, row.fused_qkv),
                spec(in, row.v, kv_width, config.hidden, config.kv_bias, row.fused_qkv)};
  } else {
    steps[0] = {spec(in, row.qkv, q_width + 2 * kv_width, config.hidden, config.q_bias)};
  }
  steps[1] = {spec(StepKind::attention_out, row.o, config.hidden, q_width, config.o_bias)};
  if (!row.gate_up.empty()) {
    steps[2] = {spec(mlp, row.gate_up, 2 * config.intermediate, config.hidden, config.mlp_bias)};
  } else if (row.gate.empty()) {
    steps[2] = {spec(mlp, row.up, config.intermediate, config.hidden, config.mlp_bias)};
  } else {
    steps[2] = {spec(mlp, row.gate, config.intermediate, config.hidden, config.mlp_bias, row.fused_gate_up),
                spec(mlp, row.up, config.intermediate, config.hidden, config.mlp_bias, row.fused_gate_up)};
  }
  steps[3] = {spec(StepKind::mlp_out, row.down, config.hidden, config.intermediate, config.mlp_bias)};
  return steps;
}

LinearSpec head_spec(const ModelConfig& config) {
  return {.name = config.head,
          .out_features = config.vocabulary,
          .in_features = config.hidden,
          .bias = config.head_bias,
          .step = StepKind::head};
}

PartSpec norm_spec(const ModelConfig& config, const std::string& module, int64_t rows, int64_t cols) {
  const NormWeight weight = config.architecture->norm_weight;
  PartSpec spec{.rows = rows, .cols = cols, .plus_one = weight == NormWeight::plus_one};
  if (weight != NormWeight::none) spec.weights.push_back(module + ".weight");
  if (config.norm_bias) spec.bias = module + ".bias";
  return spec;
}

std::vector<PartSpec> part_specs(const ModelConfig& config, int64_t block) {
  const Architecture& row = *config.architecture;
  const std::string prefix = block_module(config, block) + ".";
  std::vector<PartSpec> specs;
  const auto add = [&](Part part, std::string_view name, int64_t rows, int64_t cols) {
    if (name.empty()) return;
    specs.push_back(norm_spec(config, prefix + std::string(name), rows, cols));
    specs.back().part = part;
  };
  add(Part::attention_norm, row.attention_norm, 1, config.hidden);
  add(Part::attention_post_norm, row.attention_post_norm, 1, config.hidden);
  add(Part::mlp_norm, row.mlp_norm, 1, config.hidden);
  add(Part::mlp_post_norm, row.mlp_post_norm, 1, config.hidden);
  if (!config.qk_norm) return specs;
  for (const auto& [part, name, heads] :
       {std::tuple(Part::q_norm, row.q_norm, config.heads), std::tuple(Part::k_norm, row.k_norm, config.kv_heads)}) {
    const bool whole = row.qk_norm == QkNorm::whole, each = row.qk_norm == QkNorm::each_head;
    add(part, name, each ? heads : 1, whole ? heads * config.head_dim : config.head_dim);
    if (row.qk_norm != QkNorm::head) specs.back().bias.clear();
    if (row.qk_norm_list.empty()) continue;
    specs.back().weights.clear();  // a module for each head
    for (int64_t head = 0; head < heads; ++head)
      specs.back().weights.push_back(cat(prefix, name, ".", row.qk_norm_list, ".", head, ".weight"));
  }
  return specs;
}

StateUse state_use(const ModelConfig& config, const StepSpecs& steps, int64_t step, bool keeps_inputs) {
  const bool ends = step == static_cast<int64_t>(steps.size());
  const StepKind kind = ends ? StepKind::head : steps[step][0].step;
  if (!keeps_inputs) {
    const bool writes = ends || (kind == StepKind::mlp_in && !config.parallel);
    return {.reads_residual = true, .reads_input = false, .writes_residual = writes};
  }
  switch (kind) {
    case StepKind::attention_in:
      return {.reads_residual = true, .reads_input = false, .writes_residual = false};
    case StepKind::attention_out:
    case StepKind::mlp_out:
      return {.reads_residual = false, .reads_input = true, .writes_residual = false};
    default:  // mlp_in, finish
      return {};
  }
}

int64_t first_needed(const ModelConfig& config, const StepSpecs& steps, int64_t step, bool keeps_inputs) {
  if (keeps_inputs) return std::max<int64_t>(step - 1, 0);
  const auto mlp =
      std::find_if(steps.begin(), steps.end(), [](const auto& linears) { return linears[0].step == StepKind::mlp_in; });
  return config.parallel || step <= mlp - steps.begin() ? 0 : mlp - steps.begin();
}

}  // namespace gptq
