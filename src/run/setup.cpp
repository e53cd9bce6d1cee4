#include "run/setup.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "format/loaders.h"
#include "recipe/options.h"
#include "run/block_quantizer.h"
#include "run/mixed_bits.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

// "model.layers.3.self_attn.q_proj" -> "self_attn.q_proj"
std::string name_in_block(const ModelConfig& config, const std::string& name) {
  const size_t index = module_path(config, config.architecture->blocks).size() + 1;
  return name.substr(name.find('.', index) + 1);
}

void check_numbers(const Job& job) {
  validate(job.recipe);
  validate_rules(job.recipe);
  check_ranges(job);
  if (!job.spill_dir.empty() && !fs::is_directory(job.spill_dir))
    throw InputError(cat("--spill-dir ", job.spill_dir, ": no such folder"));
}

Calibration find_calibration(const Job& job, const Checkpoint& checkpoint, const ModelConfig& config,
                             std::vector<Notice>& notices) {
  Calibration calibration = job.calibration;
  const fs::path beside = fs::absolute(checkpoint.folder()).lexically_normal() / "../calibration.txt";
  check_ranges(calibration);
  if (calibration.file.empty() && fs::exists(beside)) calibration.file = beside.lexically_normal().string();
  if (calibration.file.empty()) {
    throw InputError(
        "no calibration text: pass --calibration FILE (.txt, or .jsonl with text, messages or input_ids), or --method "
        "rtn, which needs none");
  }
  const int64_t positions = config.max_positions;
  if (calibration.sequence_length > positions) {
    notices.push_back({Progress::Kind::message,
                       cat("calibration: sequences of ", positions,
                           " tokens, as many as the model has positions, instead of ", calibration.sequence_length)});
    calibration.sequence_length = positions;
  }
  return calibration;
}

// What becomes of each linear.
void choose_linears(const Job& job, Setup& setup) {
  std::set<std::string> wanted, known;
  for (const auto& names : job.recipe.modules_in_block_to_quantize) wanted.insert(names.begin(), names.end());
  const auto choose = [&](const LinearSpec& linear, const std::optional<ResolvedRecipe>& recipe) {
    setup.linears.push_back({linear, {}});
    if (!recipe) return;
    setup.format->check(*recipe);
    check_shape(linear, *recipe);
    setup.linears.back().config = stored_as(*setup.format, *recipe);
    setup.quantized.emplace(linear.name + ".weight", QuantizedLinear{linear, *recipe});
    setup.quantized_weights += linear.in_features * linear.out_features;
    setup.replaced[linear.tensor].push_back(linear.name);
    if (linear.bias && linear.slab >= 0) setup.cut_biases[linear.bias_tensor].push_back(linear.name);
  };
  const std::vector<std::vector<LinearSpec>> steps = all_steps(setup.config);
  for (const auto& step : steps) {
    for (const LinearSpec& linear : step) {
      known.insert(name_in_block(setup.config, linear.name));
      choose(linear, recipe_for(job.recipe, linear.name));
    }
  }
  for (const StoredLinear& linear : setup.linears) {
    if (linear.config || setup.replaced.count(linear.spec.tensor) == 0) continue;
    throw InputError(cat(linear.spec.name, " stays as it is by the rules, but lies in '", linear.spec.tensor,
                         "' with others that are quantized: quantize all of them, or none"));
  }
  setup.written_rules = with_fused_names(job.recipe, steps);
  const LinearSpec head = head_spec(setup.config);
  if (job.recipe.lm_head && setup.config.tied_embeddings) {
    throw InputError(cat("--lm-head: the output head of ", job.model,
                         " is its embedding (tie_word_embeddings), in which loaders look tokens up unquantized; drop "
                         "the flag"));
  }
  choose(head, recipe_for_head(job.recipe, head.name));
  for (const std::string& name : wanted) {
    if (known.count(name) != 0) continue;
    std::string names;
    for (const std::string& other : known) names += (names.empty() ? "" : ", ") + other;
    throw InputError(cat("--modules-in-block-to-quantize ", name, ": a block of this model has ", names));
  }
  for (const ModuleRule& rule : job.recipe.dynamic) {
    const bool used = std::any_of(setup.linears.begin(), setup.linears.end(),
                                  [&](const StoredLinear& linear) { return matches(rule, linear.spec.name); });
    if (used) continue;
    setup.notices.push_back(
        {Progress::Kind::warning, cat("the rule '", rule.pattern, "' matches no linear of this model")});
  }
  if (setup.quantized.empty())
    throw InputError("the recipe quantizes nothing: its rules skip every linear of the model");
}

void plan_output(const Job& job, Setup& setup) {
  setup.layout =
      setup.format->layout({*setup.checkpoint, setup.quantized, setup.replaced, setup.cut_biases}, job.max_shard_bytes);
  setup.output_bytes = setup.layout.output_bytes;
  setup.bits_per_weight = 8.0 * static_cast<double>(setup.layout.quantized_bytes) /
                          static_cast<double>(std::max<int64_t>(setup.quantized_weights, 1));
}

// The rules for quantizing, in the order in which Optimum applies them.
Placement placement_for_quantizing(const std::string& text, const Resources& resources, const ModuleTree& tree,
                                   std::vector<Notice>& notices) {
  const Machine& machine = resources.machine;
  if (text.empty()) {
    notices.push_back({Progress::Kind::message, default_device_map_message(machine)});
    return place(default_device_map(machine), machine, tree, true);
  }
  const DeviceMap map = parse_device_map(text, machine, tree, resources.max_memory);
  refuse_disk_offload(map);
  if (offloads_to_cpu(map)) notices.push_back({Progress::Kind::warning, kCpuOffloadWarning});
  return place(map, machine, tree, !asks_for_no_placement(map));
}

// What Optimum reads in the place of rules, where those skip the same linears in all blocks: the names in a block of
// the others, step by step. Empty where nothing is skipped, or not by all alike.
std::vector<std::vector<std::string>> kinds_in_every_block(const Setup& setup) {
  std::vector<std::vector<std::string>> first;
  bool skips = false;
  for (int64_t block = 0; block < setup.config.blocks; ++block) {
    std::vector<std::vector<std::string>> kinds;
    for (const auto& step : step_specs(setup.config, block)) {
      std::vector<std::string> names;
      for (const LinearSpec& linear : step) {
        const bool is_quantized = setup.quantized.count(linear.name + ".weight") != 0;
        skips = skips || !is_quantized;
        if (is_quantized) names.push_back(name_in_block(setup.config, linear.name));
      }
      if (!names.empty()) kinds.push_back(std::move(names));
    }
    if (block == 0) first = kinds;
    if (kinds != first) return {};
  }
  return skips ? first : std::vector<std::vector<std::string>>();
}

// As if all were of the width above the average; the sizes are then those of the average.
void lay_out_average(const Job& job, Setup& setup) {
  setup.free_average = free_average(job.recipe, all_steps(setup.config));
  setup.widths = candidate_widths(job, all_steps(setup.config));
  lay_out(at_width(job, setup.widths[1]), setup);
  if (!job.loader.empty()) {
    const std::vector<StoredLinear> linears = mixture(job, setup.widths, setup.config);
    refuse_for_loader(job.loader, loader_verdicts(*setup.format, linears, setup.config));
  }
  double free_weights = 0;
  for (const auto& step : all_steps(setup.config)) {
    for (const LinearSpec& linear : free_linears(job.recipe, step))
      free_weights += static_cast<double>(linear.in_features * linear.out_features);
  }
  const double saved_bits = share_of_least(setup) * (setup.widths[1] - setup.widths[0]) * free_weights;
  setup.bits_per_weight -= saved_bits / static_cast<double>(setup.quantized_weights);
  setup.output_bytes -= static_cast<int64_t>(saved_bits / 8);
}

}  // namespace

void lay_out(const Job& job, Setup& setup) {
  setup.quantized.clear();
  setup.replaced.clear();
  setup.cut_biases.clear();
  setup.linears.clear();
  setup.quantized_weights = 0;
  choose_linears(job, setup);
  plan_output(job, setup);
}

std::vector<std::vector<LinearSpec>> all_steps(const ModelConfig& config) {
  std::vector<std::vector<LinearSpec>> steps;
  for (int64_t block = 0; block < config.blocks; ++block) {
    for (auto& step : step_specs(config, block)) steps.push_back(std::move(step));
  }
  return steps;
}

OutputRecord output_record(const Job& job, const Setup& setup) {
  OutputRecord record{.recipe = job.recipe};
  record.recipe.dynamic = setup.written_rules;
  for (const StoredLinear& linear : setup.linears) {
    const auto found = setup.quantized.find(linear.spec.name + ".weight");
    if (found != setup.quantized.end())
      record.quantized.push_back(found->second);
    else
      record.unquantized.push_back(linear.spec.name);
  }
  auto& kinds = record.recipe.modules_in_block_to_quantize;
  if (kinds.empty()) kinds = kinds_in_every_block(setup);
  return record;
}

DType stored_dtype(const Checkpoint& checkpoint, const ModelConfig& config) {
  const std::string name = module_path(config, config.architecture->embedding) + ".weight";
  return parse_safetensors_dtype(checkpoint.tensor(name).dtype).value_or(DType::f32);
}

std::vector<DeviceSummary> devices() {
  std::vector<DeviceSummary> summaries;
  for (const DeviceInfo& device : list_devices())
    summaries.push_back({device.name, device.description, device.total_bytes, device.free_bytes});
  return summaries;
}

int64_t Resources::limit_of(const std::string& device) const {
  for (const auto& [name, bytes] : max_memory) {
    if (name == device) return bytes;
  }
  if (device == "cpu") return machine.cpu.total_bytes;
  for (const DeviceInfo& accelerator : machine.accelerators) {
    if (accelerator.name == device) return accelerator.free_bytes;
  }
  return 0;
}

Resources find_resources(const std::string& max_memory) {
  Resources resources;
  resources.machine.accelerators = list_devices();
  resources.machine.cpu = resources.machine.accelerators.back();
  resources.machine.accelerators.pop_back();
  if (resources.machine.accelerators.empty()) {
    try {
      open_backend("cuda:0");
    } catch (const InputError& error) {
      resources.machine.why_no_gpu = error.what();
    }
  }
  if (!max_memory.empty()) resources.max_memory = parse_max_memory(max_memory, resources.machine);
  return resources;
}

size_t writes_behind(const Setup& setup) {
  constexpr size_t kLinears = 8;
  const auto computes = [](const std::string& name) { return name == "cpu" || name.starts_with("sim"); };
  return std::all_of(setup.placement.devices.begin(), setup.placement.devices.end(), computes) ? 1 : kLinears;
}

StateBytes state_bytes(const Setup& setup) {
  const auto size = [](DType dtype) { return static_cast<int64_t>(size_of(dtype)); };
  return {setup.config.hidden * size(setup.precision.residual),
          widest_input(setup.config) * size(setup.precision.computed)};
}

Setup set_up(const Job& job) {
  check_numbers(job);
  Setup setup;
  setup.format = &format_of(job.recipe);
  setup.checkpoint = std::make_unique<Checkpoint>(job.model, job.max_read_rate);
  const Checkpoint& checkpoint = *setup.checkpoint;
  if (!checkpoint.quantization_config().is_null())
    throw InputError(already_quantized(checkpoint.quantization_config(), job.model));
  setup.config = parse_model_config(checkpoint);
  setup.resources = find_resources(job.max_memory);
  setup.placement =
      placement_for_quantizing(job.device_map, setup.resources, module_tree(checkpoint, setup.config), setup.notices);
  const DType stored = stored_dtype(checkpoint, setup.config);
  const auto backend = open_backend(setup.placement.devices[0], {.threads = 1});
  if (job.recipe.method == Method::gptq) setup.workspace_bytes = backend->workspace_bytes();
  setup.precision = precision_of(stored, job.precision, *backend);
  setup.batch_tokens = backend->batch_tokens(setup.precision.computed);
  setup.notices.push_back({Progress::Kind::message, message_of(setup.precision)});
  const Model checked(checkpoint, *backend, setup.precision.computed);  // every tensor is there, of the right shape
  if (job.recipe.average_bits != 0 && setup.config.experts.count > 0)
    throw UnsupportedError(
        "--average-bits measures step by step, which a model with experts has too many of: give --bits, and rules for "
        "single modules");
  if (job.recipe.average_bits == 0) {
    lay_out(job, setup);
    if (!job.loader.empty()) refuse_for_loader(job.loader, loader_verdicts(*setup.format, setup.linears, setup.config));
  } else {
    lay_out_average(job, setup);
  }
  if (job.recipe.method == Method::gptq)
    setup.calibration = find_calibration(job, checkpoint, setup.config, setup.notices);
  return setup;
}

Placement placement_for_running(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& device_map,
                                const Resources& resources, std::vector<Notice>& notices) {
  const ModuleTree tree = module_tree(checkpoint, config);
  if (!device_map.empty()) {
    // A map without an accelerator runs on the CPU, as accelerate's dispatch_model has it.
    const Machine only_the_map{.accelerators = {}, .cpu = resources.machine.cpu};
    return place(parse_device_map(device_map, resources.machine, tree, resources.max_memory), only_the_map, tree, true);
  }
  notices.push_back({Progress::Kind::message, default_device_map_message(resources.machine)});
  return place(default_device_map(resources.machine), resources.machine, tree, true);
}

std::vector<std::vector<TokenSequence>> make_batches(const std::vector<TokenSequence>& sequences, int64_t batch_size,
                                                     int64_t batch_tokens) {
  std::vector<std::vector<TokenSequence>> batches;
  for (const TokenSequence& sequence : sequences) {
    const auto length = static_cast<int64_t>(sequence.size());
    const int64_t limit =
        batch_size > 0 ? batch_size : std::max<int64_t>(1, batch_tokens / std::max<int64_t>(length, 1));
    const bool fits = !batches.empty() && batches.back()[0].size() == sequence.size() &&
                      static_cast<int64_t>(batches.back().size()) < limit;
    if (!fits) batches.emplace_back();
    batches.back().push_back(sequence);
  }
  return batches;
}

}  // namespace gptq
