#include "model/specs.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "base/error.h"

namespace gptq {

std::string of_expert(std::string_view path, int64_t expert) {
  const size_t place = path.find('#');
  if (place == std::string_view::npos) return std::string(path);
  return cat(path.substr(0, place), expert, path.substr(place + 1));
}

namespace {

// Makes the linears of one block.
class Specs {
 public:
  Specs(const ModelConfig& config, int64_t block)
      : config_(config),
        row_(*config.architecture),
        kind_(config.kinds[static_cast<size_t>(block)]),
        is_last_(block == config.blocks - 1),
        prefix_(block_module(config, block) + ".") {}

  LinearSpec linear(StepKind step, std::string_view name, int64_t out, int64_t in, bool bias,
                    std::string_view fused = {}) const {
    LinearSpec spec{.name = prefix_ + std::string(name),
                    .out_features = out,
                    .in_features = in,
                    .bias = bias,
                    .fused = fused.empty() ? "" : prefix_ + std::string(fused),
                    .step = step,
                    .transposed = row_.transposed};
    spec.tensor = spec.name + ".weight";
    spec.shape = spec.transposed ? std::vector<int64_t>{in, out} : std::vector<int64_t>{out, in};
    spec.bias_tensor = spec.name + ".bias";
    spec.bias_shape = {out};
    return spec;
  }

  void add_mixer(StepSpecs& steps, Mixer mixer) const {
    switch (mixer) {
      case Mixer::attention:
        return add_attention(steps);
      case Mixer::convolution:
        return add_convolution(steps);
      case Mixer::state_space:
        return add_state_space(steps);
      case Mixer::attention_and_state_space:
        return add_attention_and_state_space(steps);
      case Mixer::delta_rule:
        return add_delta_rule(steps);
      case Mixer::none:
        return;
    }
  }

  void add_mlp(StepSpecs& steps, const BlockKind& kind) const {
    if (kind.has_experts) return add_experts(steps);
    if (kind.has_mlp) add_mlp(steps);
  }

 private:
  struct Names {
    std::string_view gate, up, gate_up, down;
  };

  void add_attention(StepSpecs& steps) const {
    const int64_t hidden = config_.hidden, q_width = kind_.heads * kind_.head_dim,
                  kv_width = kind_.kv_heads * kind_.head_dim, v_width = kind_.kv_heads * kind_.value_dim;
    if (config_.latent.kv_rank > 0) return add_latent_attention(steps);
    if (row_.qkv.empty()) {
      const auto add = [&](std::string_view name, int64_t width, bool bias) {
        steps.back().push_back(linear(StepKind::attention_in, name, width, hidden, bias, row_.fused_qkv));
      };
      steps.emplace_back();
      add(row_.q, row_.gated_heads ? 2 * q_width : q_width, config_.q_bias);
      if (!kind_.reuses_keys) add(row_.k, kv_width, config_.kv_bias);
      if (!kind_.reuses_keys && !kind_.value_is_key) add(row_.v, v_width, config_.kv_bias);
    } else {
      steps.push_back({linear(StepKind::attention_in, row_.qkv, q_width + 2 * kv_width, hidden, config_.q_bias)});
    }
    if (!row_.attention_gate.empty() && !config_.gate_per_head)
      steps.back().push_back(linear(StepKind::attention_in, row_.attention_gate, q_width, hidden, false));
    LinearSpec out = linear(StepKind::attention_out, row_.o, hidden, kind_.heads * kind_.value_dim, config_.o_bias);
    if (is_last_ && !row_.last_o_bias.empty()) {
      out.bias = true;
      out.bias_tensor = cat(prefix_, row_.last_o_bias);
    }
    steps.push_back({std::move(out)});
  }

  LinearSpec space_in(StepKind step) const {
    const StateSpace& space = config_.state_space;
    const int64_t of_dual = 2 * space.groups * space.state + space.heads;
    return linear(step, cat(row_.state_space.module, ".in_proj"),
                  2 * space.width() + (row_.state_space.scans ? 0 : of_dual), config_.hidden, space.in_bias);
  }
  LinearSpec space_out() const {
    const StateSpace& space = config_.state_space;
    return linear(StepKind::mixer_out, cat(row_.state_space.module, ".out_proj"), config_.hidden, space.width(),
                  space.out_bias);
  }
  void add_state_space(StepSpecs& steps) const {
    steps.push_back({space_in(StepKind::mixer_in)});
    steps.push_back({space_out()});
  }
  // All that reads the block's input is one step.
  void add_attention_and_state_space(StepSpecs& steps) const {
    add_attention(steps);
    steps.front().push_back(space_in(steps.front().front().step));
    steps.push_back({space_out()});
  }

  // The three inputs of a short convolution come from one linear.
  void add_convolution(StepSpecs& steps) const {
    const int64_t hidden = config_.hidden;
    const bool bias = config_.convolution.bias;
    steps.push_back({linear(StepKind::mixer_in, row_.convolution.in, 3 * hidden, hidden, bias)});
    steps.push_back({linear(StepKind::mixer_out, row_.convolution.out, hidden, hidden, bias)});
  }

  void add_delta_rule(StepSpecs& steps) const {
    const DeltaRow& row = row_.delta;
    const DeltaRule& delta = config_.delta;
    const int64_t hidden = config_.hidden, values = delta.value_width();
    steps.emplace_back();
    const auto add = [&](std::string_view name, int64_t width) {
      steps.back().push_back(linear(StepKind::mixer_in, name, width, hidden, false, row.fused_qkvz));
    };
    if (row.qkv.empty()) {
      add(row.qkvz, delta.mixed_width() + values);
    } else {
      const std::vector<int64_t> widths = delta.widths(row.qkv.size());
      for (size_t i = 0; i < widths.size(); ++i) add(row.qkv[i], widths[i]);
      add(row.z, values);
    }
    steps.push_back({linear(StepKind::mixer_out, row.out, hidden, values, false)});
  }

  void add_mlp(StepSpecs& steps) const {
    add_pair(steps, StepKind::mlp_in, StepKind::mlp_out, {row_.gate, row_.up, row_.gate_up, row_.down},
             kind_.intermediate, config_.mlp_bias, row_.fused_gate_up);
  }

  void add_experts(StepSpecs& steps) const {
    const Experts& experts = config_.experts;
    const ExpertRow& row = config_.expert_row;
    if (experts.shared_intermediate > 0) {
      add_pair(steps, StepKind::shared_in, StepKind::shared_out,
               {row.shared_gate, row.shared_up, row.shared_gate_up, row.shared_down}, experts.shared_intermediate,
               config_.mlp_bias, {});
    }
    for (int64_t expert = 0; expert < experts.count; ++expert) {
      const size_t first = steps.size();
      const std::string gate = of_expert(row.gate, expert), up = of_expert(row.up, expert),
                        gate_up = of_expert(row.gate_up, expert), down = of_expert(row.down, expert);
      add_pair(steps, StepKind::expert_in, StepKind::expert_out, {gate, up, gate_up, down}, experts.intermediate,
               experts.bias, {});
      for (size_t step = first; step < steps.size(); ++step) {
        for (LinearSpec& spec : steps[step]) {
          spec.expert = expert;
          spec.share = static_cast<double>(experts.chosen) / static_cast<double>(experts.count);
        }
      }
      if (row.tensors != ExpertTensors::split) point_at_fused(steps[first], steps[first + 1][0], expert);
    }
  }

  void add_pair(StepSpecs& steps, StepKind in, StepKind out, const Names& names, int64_t width, bool bias,
                std::string_view fused) const {
    const int64_t hidden = config_.hidden;
    if (!names.gate_up.empty()) {
      steps.push_back({linear(in, names.gate_up, 2 * width, hidden, bias)});
    } else if (names.gate.empty()) {
      steps.push_back({linear(in, names.up, width, hidden, bias)});
    } else {
      steps.push_back(
          {linear(in, names.gate, width, hidden, bias, fused), linear(in, names.up, width, hidden, bias, fused)});
    }
    steps.push_back({linear(out, names.down, hidden, width, bias)});
  }

  void add_latent_attention(StepSpecs& steps) const {
    const Latent& latent = config_.latent;
    const int64_t hidden = config_.hidden, q_width = config_.heads * config_.head_dim,
                  value_width = config_.heads * latent.value_dim,
                  kv_width = config_.heads * (config_.head_dim - latent.rope_dim) + value_width;
    const bool compressed = latent.q_rank > 0;
    steps.push_back(
        {compressed ? linear(StepKind::latent_in, row_.latent.q_a, latent.q_rank, hidden, config_.q_bias)
                    : linear(StepKind::latent_in, row_.q, q_width, hidden, false),
         linear(StepKind::latent_in, row_.latent.kv_a, latent.kv_rank + latent.rope_dim, hidden, config_.kv_bias)});
    if (compressed) steps.push_back({linear(StepKind::latent_query, row_.latent.q_b, q_width, latent.q_rank, false)});
    steps.push_back({linear(StepKind::latent_key_value, row_.latent.kv_b, kv_width, latent.kv_rank, false)});
    steps.push_back({linear(StepKind::attention_out, row_.o, hidden, value_width, config_.o_bias)});
  }

  // For fused experts: their matrices in the tensors of all experts.
  void point_at_fused(std::vector<LinearSpec>& in, LinearSpec& down, int64_t expert) const {
    const Experts& experts = config_.experts;
    const ExpertRow& row = config_.expert_row;
    const bool turned = row.tensors != ExpertTensors::halves, pairs = row.tensors == ExpertTensors::turned_pairs;
    const int64_t width = 2 * experts.intermediate;
    const auto point = [&](LinearSpec& spec, std::string_view weight, std::string_view bias, int64_t out,
                           int64_t width_in) {
      spec.tensor = cat(prefix_, weight);
      spec.shape = turned ? std::vector<int64_t>{experts.count, width_in, out}
                          : std::vector<int64_t>{experts.count, out, width_in};
      spec.bias_tensor = cat(prefix_, bias);
      spec.bias_shape = {experts.count, out};
      spec.transposed = turned;
      spec.matrix_index = expert;
    };
    for (size_t i = 0; i < in.size(); ++i) {
      point(in[i], row.stored_gate_up, row.stored_gate_up_bias, width, config_.hidden);
      if (in.size() == 1) continue;
      in[i].first = pairs ? static_cast<int64_t>(i) : static_cast<int64_t>(i) * experts.intermediate;
      in[i].stride = pairs ? 2 : 1;
    }
    point(down, row.stored_down, row.stored_down_bias, config_.hidden, experts.intermediate);
  }

  const ModelConfig& config_;
  const Architecture& row_;
  const BlockKind& kind_;
  const bool is_last_;
  const std::string prefix_;
};

}  // namespace

std::string module_path(const ModelConfig& config, std::string_view module) {
  return config.root.empty() ? std::string(module) : cat(config.root, ".", module);
}

int64_t block_place(const ModelConfig& config, int64_t index) {
  return config.places.empty() ? index : config.places[static_cast<size_t>(index)];
}

std::string block_module(const ModelConfig& config, int64_t index) {
  return cat(module_path(config, config.architecture->blocks), ".", block_place(config, index));
}

std::string tensor_name(const ModelConfig& config, std::string_view module) {
  return module_path(config, module) + ".weight";
}

std::string embedding_tensor(const ModelConfig& config) {
  return config.embedding.empty() ? tensor_name(config, config.architecture->embedding) : config.embedding + ".weight";
}

std::string head_tensor(const ModelConfig& config) {
  return config.tied_embeddings ? embedding_tensor(config) : config.head + ".weight";
}

StepSpecs step_specs(const ModelConfig& config, int64_t block) {
  const Specs specs(config, block);
  StepSpecs steps;
  const BlockKind& kind = config.kinds[static_cast<size_t>(block)];
  specs.add_mixer(steps, kind.mixer);
  specs.add_mlp(steps, kind);
  return steps;
}

LinearSpec head_spec(const ModelConfig& config) {
  return {.name = config.head,
          .out_features = config.vocabulary,
          .in_features = config.hidden,
          .bias = config.head_bias,
          .step = StepKind::head,
          .tensor = config.head + ".weight",
          .bias_tensor = config.head + ".bias",
          .shape = {config.vocabulary, config.hidden},
          .bias_shape = {config.vocabulary}};
}

PartSpec norm_spec(const ModelConfig& config, const std::string& module, int64_t rows, int64_t cols) {
  const NormWeight weight = config.norm_weight;
  PartSpec spec{.rows = rows, .cols = cols, .plus_one = weight == NormWeight::plus_one};
  if (weight != NormWeight::none) spec.weights.push_back(module + ".weight");
  if (config.norm_bias) spec.bias = module + ".bias";
  return spec;
}

std::vector<int64_t> matrix_shape(const PartSpec& spec, size_t tensor) {
  const int64_t rows =
      spec.heights.empty() ? spec.rows / static_cast<int64_t>(spec.weights.size()) : spec.heights[tensor];
  if (spec.part == Part::convolution) return {rows, 1, spec.cols};
  if (spec.transposed) return {spec.cols, rows};
  return {rows, spec.cols};
}

int64_t bias_size(const PartSpec& spec) {
  const bool is_of_rows =
      spec.part == Part::router || spec.part == Part::convolution || spec.part == Part::step_projection;
  return is_of_rows ? spec.rows : spec.cols;
}

namespace {

void add_state_space_parts(const ModelConfig& config, const std::string& prefix, std::vector<PartSpec>& specs) {
  const StateSpace& space = config.state_space;
  const StateSpaceRow& row = config.architecture->state_space;
  const std::string module = cat(prefix, row.module, ".");
  const int64_t width = space.width(), of_groups = space.groups * space.state;
  const auto add = [&](Part part, const std::string& tensor, int64_t rows, int64_t cols, const std::string& bias = "") {
    specs.push_back({.part = part,
                     .weights = {module + tensor},
                     .bias = bias.empty() ? "" : module + bias,
                     .rows = rows,
                     .cols = cols});
  };
  add(Part::convolution, "conv1d.weight", row.scans ? width : width + 2 * of_groups, space.taps,
      space.convolution_bias ? "conv1d.bias" : "");
  add(Part::skip, "D", 1, space.heads);
  if (space.has_norm) add(Part::gated_norm, "norm.weight", 1, width);
  if (!row.scans) {
    add(Part::decay, "A_log", 1, space.heads);
    add(Part::step_bias, "dt_bias", 1, space.heads);
    return;
  }
  add(Part::decay, "A_log", width, space.state);
  add(Part::selection, "x_proj.weight", space.rank + 2 * space.state, width);
  add(Part::step_projection, "dt_proj.weight", width, space.rank, "dt_proj.bias");
  if (row.selection_norms == SelectionNorms::none) return;
  for (const auto& [part, name, cols] : {std::tuple(Part::step_norm, "dt_layernorm.weight", space.rank),
                                         std::tuple(Part::b_norm, "b_layernorm.weight", space.state),
                                         std::tuple(Part::c_norm, "c_layernorm.weight", space.state)}) {
    add(part, name, 1, cols);
    if (row.selection_norms == SelectionNorms::unweighted) specs.back().weights.clear();
  }
}

// The parts of the gated delta rule. Queries and keys are normalized to length 1, queries then divided by the root of
// their size: a norm with constant weights.
void add_delta_parts(const ModelConfig& config, const std::string& prefix, std::vector<PartSpec>& specs) {
  const DeltaRow& row = config.architecture->delta;
  const DeltaShape& shape = config.delta.shape;
  const auto add = [&](Part part, const std::string& tensor, int64_t rows, int64_t cols) {
    specs.push_back({.part = part, .weights = {prefix + tensor}, .rows = rows, .cols = cols});
  };
  PartSpec gates{.part = Part::mixer_gates, .rows = 2 * shape.value_heads, .cols = config.hidden};
  for (const std::string_view name : row.gates) gates.weights.push_back(cat(prefix, name, ".weight"));
  specs.push_back(gates);
  specs.push_back({.part = Part::convolution,
                   .rows = config.delta.mixed_width(),
                   .cols = config.delta.taps,
                   .heights = config.delta.widths(row.convolutions.size())});
  for (const std::string_view name : row.convolutions) specs.back().weights.push_back(cat(prefix, name, ".weight"));
  add(Part::decay, std::string(row.decay_rate), 1, shape.value_heads);
  add(Part::step_bias, std::string(row.decay_bias), 1, shape.value_heads);
  add(Part::gated_norm, cat(row.norm, ".weight"), 1, shape.value_dim);
  const auto size = static_cast<float>(shape.key_dim);
  specs.push_back({.part = Part::query_scale, .rows = 1, .cols = shape.key_dim, .scale = 1 / size});
  specs.push_back({.part = Part::key_scale, .rows = 1, .cols = shape.key_dim, .scale = 1 / std::sqrt(size)});
}

void add_altup_parts(const ModelConfig& config, const std::string& prefix, std::vector<PartSpec>& specs) {
  const AltUpRow& row = config.architecture->altup;
  const int64_t count = config.residuals, hidden = config.hidden;
  specs.push_back(norm_spec(config, cat(prefix, row.router_norm), 1, hidden));
  specs.back().part = Part::altup_norm;
  specs.back().scale = static_cast<float>(1 / static_cast<double>(hidden));
  for (const auto& [part, name, rows, cols] :
       {std::tuple(Part::altup_router, row.router, count, hidden),
        std::tuple(Part::altup_predictions, row.prediction_coefficients, count * count, count),
        std::tuple(Part::altup_corrections, row.correction_coefficients, count, count)})
    specs.push_back({.part = part, .weights = {cat(prefix, name, ".weight")}, .rows = rows, .cols = cols});
  if (config.scales_output)
    specs.push_back({.part = Part::altup_scale, .weights = {cat(prefix, row.output_scale)}, .rows = 1, .cols = hidden});
}

void add_laurel_parts(const ModelConfig& config, const std::string& prefix, std::vector<PartSpec>& specs) {
  const LaurelRow& row = config.architecture->laurel;
  const int64_t rank = config.laurel_rank, hidden = config.hidden;
  specs.push_back(
      {.part = Part::laurel_left, .weights = {cat(prefix, row.left, ".weight")}, .rows = rank, .cols = hidden});
  specs.push_back(
      {.part = Part::laurel_right, .weights = {cat(prefix, row.right, ".weight")}, .rows = hidden, .cols = rank});
  specs.push_back(norm_spec(config, cat(prefix, row.post_norm), 1, hidden));
  specs.back().part = Part::laurel_norm;
}

BlockNorms norms_of(const Architecture& row, const BlockKind& kind) {
  if (row.norms_without_attention && !attends(kind)) return *row.norms_without_attention;
  return {row.attention_norm, row.attention_post_norm, row.mlp_norm, row.mlp_post_norm};
}

// Collects the parts of a block.
struct BlockParts {
  const ModelConfig& config;
  const BlockKind& kind;
  const std::string prefix;
  std::vector<PartSpec> specs;

  void add_norm(Part part, std::string_view name, int64_t rows, int64_t cols) {
    if (name.empty()) return;
    specs.push_back(norm_spec(config, prefix + std::string(name), rows, cols));
    specs.back().part = part;
  }
  // A module's weight, or a plain tensor.
  void add(Part part, const std::string& tensor, int64_t rows, int64_t cols, const std::string& bias = "") {
    specs.push_back({.part = part,
                     .weights = {prefix + tensor},
                     .bias = bias.empty() ? "" : prefix + bias,
                     .rows = rows,
                     .cols = cols});
  }

  void add_norms(int64_t block);
  void add_experts();
  void add_head_norms();
};

void BlockParts::add_norms(int64_t block) {
  const Architecture& row = *config.architecture;
  const BlockNorms norms = norms_of(row, kind);
  if (kind.mixer != Mixer::none) {
    if (block > 0 || !row.first_unnormed) add_norm(Part::attention_norm, norms.mixer, 1, config.hidden);
    if (config.post_norm) add_norm(Part::attention_post_norm, norms.mixer_post, 1, config.hidden);
  }
  if (!kind.has_mlp) return;
  add_norm(Part::mlp_norm, norms.mlp, 1, config.hidden);
  if (!norms.mlp.empty()) specs.back().scale = config.mlp_input_scale;
  const bool has_own = kind.has_experts && !row.experts.post_norm.empty();
  if (config.post_norm)
    add_norm(Part::mlp_post_norm, has_own ? row.experts.post_norm : norms.mlp_post, 1, config.hidden);
}

void BlockParts::add_experts() {
  const ExpertRow& experts = config.expert_row;
  const std::string router(experts.router);
  add(Part::router, router + ".weight", config.experts.count, config.hidden,
      config.experts.router_bias ? router + ".bias" : "");
  specs.back().transposed = experts.turned_router;
  if (!experts.choice_bias.empty()) {
    add(Part::choice_bias, std::string(experts.choice_bias), 1, config.experts.count);
    if (experts.choice_biases > 1) specs.back().heights = {experts.choice_biases};
  }
  if (!experts.shared_router.empty()) add(Part::shared_router, cat(experts.shared_router, ".weight"), 1, config.hidden);
  if (experts.beside_norm.empty()) return;
  add_norm(Part::beside_norm, experts.beside_norm, 1, config.hidden);
  add_norm(Part::beside_post_norm, experts.beside_post_norm, 1, config.hidden);
  add_norm(Part::shared_post_norm, experts.shared_post_norm, 1, config.hidden);
  add(Part::router_norm, std::string(experts.router_norm), 1, config.hidden);
  specs.back().scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config.hidden)));
  add(Part::expert_scales, std::string(experts.expert_scales), 1, config.experts.count);
}

void BlockParts::add_head_norms() {
  const Architecture& row = *config.architecture;
  if (row.v_normed && !kind.reuses_keys) specs.push_back({.part = Part::v_norm, .rows = 1, .cols = kind.head_dim});
  if (!config.qk_norm) return;
  for (const auto& [part, name, heads] :
       {std::tuple(Part::q_norm, row.q_norm, kind.heads), std::tuple(Part::k_norm, row.k_norm, kind.kv_heads)}) {
    if (part == Part::k_norm && kind.reuses_keys) continue;
    const bool whole = row.qk_norm == QkNorm::whole, each = row.qk_norm == QkNorm::each_head;
    if (row.qk_norm == QkNorm::unweighted) {
      if (kind.rope >= 0) specs.push_back({.part = part, .rows = 1, .cols = kind.head_dim});
      continue;
    }
    add_norm(part, name, each ? heads : 1, whole ? heads * kind.head_dim : kind.head_dim);
    if (row.qk_norm != QkNorm::head) specs.back().bias.clear();
    if (row.qk_norm_list.empty()) continue;
    specs.back().weights.clear();  // one module per head
    for (int64_t head = 0; head < heads; ++head)
      specs.back().weights.push_back(cat(prefix, name, ".", row.qk_norm_list, ".", head, ".weight"));
  }
}

}  // namespace

std::vector<PartSpec> part_specs(const ModelConfig& config, int64_t block) {
  const Architecture& row = *config.architecture;
  const BlockKind& kind = config.kinds[static_cast<size_t>(block)];
  BlockParts parts{config, kind, block_module(config, block) + ".", {}};
  parts.add_norms(block);
  if (kind.mixer == Mixer::convolution) {
    const std::string name(row.convolution.convolution);
    parts.add(Part::convolution, name + ".weight", config.hidden, config.convolution.taps,
              config.convolution.bias ? name + ".bias" : "");
  }
  if (mixes_by_state_space(kind)) add_state_space_parts(config, parts.prefix, parts.specs);
  if (kind.mixer == Mixer::delta_rule) add_delta_parts(config, parts.prefix, parts.specs);
  if (config.latent.q_rank > 0) parts.add_norm(Part::q_latent_norm, row.latent.q_a_norm, 1, config.latent.q_rank);
  if (config.latent.kv_rank > 0) parts.add_norm(Part::kv_latent_norm, row.latent.kv_a_norm, 1, config.latent.kv_rank);
  if (attends(kind)) {
    if (!row.sinks.empty() && kind.has_sinks) parts.add(Part::sinks, std::string(row.sinks), 1, kind.heads);
    if (!row.attention_gate.empty() && config.gate_per_head)
      parts.add(Part::head_gates, cat(row.attention_gate, ".weight"), kind.heads, config.hidden);
    parts.add_head_norms();
  }
  if (kind.has_experts) parts.add_experts();
  if (config.per_block > 0) {
    parts.add(Part::per_block_gate, cat(row.per_block.gate, ".weight"), config.per_block, config.hidden);
    parts.add(Part::per_block_out, cat(row.per_block.out, ".weight"), config.hidden, config.per_block);
    parts.add_norm(Part::per_block_norm, row.per_block.post_norm, 1, config.hidden);
  }
  if (config.residuals > 1) add_altup_parts(config, parts.prefix, parts.specs);
  if (config.laurel_rank > 0) add_laurel_parts(config, parts.prefix, parts.specs);
  if (!row.activation_alphas.empty()) {
    const std::string module = cat(parts.prefix, row.activation_alphas);
    parts.specs.push_back(
        {.part = Part::activation_alphas, .weights = {module + ".alpha_p", module + ".alpha_n"}, .rows = 2, .cols = 1});
  }
  if (!row.block_scale.empty()) parts.add(Part::block_scale, std::string(row.block_scale), 1, 1);
  return std::move(parts.specs);
}

StepSpecs all_steps(const ModelConfig& config) {
  StepSpecs steps;
  for (int64_t block = 0; block < config.blocks; ++block) {
    for (auto& step : step_specs(config, block)) steps.push_back(std::move(step));
  }
  return steps;
}

}  // namespace gptq
