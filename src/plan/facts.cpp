#include "plan/facts.h"

#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "base/error.h"
#include "data/built_in_text.h"
#include "format/format.h"
#include "io/file.h"
#include "model/config_accounting.h"
#include "model/model.h"
#include "plan/device_map_text.h"
#include "plan/group_size.h"
#include "plan/mixed_bits.h"
#include "recipe/option.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

void check_numbers(const Job& job) {
  validate(job.recipe);
  validate_rules(job.recipe);
  check_ranges(job);
  if (job.spill_dir.empty()) return;
  auto type = fs::file_type::none;
  try {
    type = type_of(job.spill_dir);
  } catch (const InputError& error) {
    throw option_error("spill_dir", " ", error.what());
  }
  if (type != fs::file_type::directory) throw option_error("spill_dir", " ", job.spill_dir, ": no such folder");
}

Calibration find_calibration(const Job& job, const Checkpoint& checkpoint, const ModelConfig& config,
                             std::vector<Notice>& notices) {
  Calibration calibration = job.calibration;
  std::error_code error;  // where it cannot be looked for, there is none
  const fs::path found = fs::absolute(checkpoint.folder(), error).lexically_normal() / "../calibration.txt";
  check_ranges(calibration);
  const bool in_memory = !calibration.ids.empty();
  if (!in_memory && calibration.file.empty() && fs::is_regular_file(found, error))
    calibration.file = found.lexically_normal().string();
  if (!in_memory && calibration.file.empty()) {
    calibration.key.clear();
    notices.push_back({Level::message, cat("calibration: no text is given, so ", kBuiltInTextName,
                                           " is used (12 languages and code); texts like those that the model is for "
                                           "calibrate it better: `calibration` FILE")});
  }
  const int64_t positions = config.max_positions;
  if (calibration.sequence_length > positions) {
    notices.push_back(
        {Level::message, cat("calibration: sequences of ", positions,
                             " tokens, as many as the model has positions, instead of ", calibration.sequence_length)});
    calibration.sequence_length = positions;
  }
  return calibration;
}

// Applies the rules for quantizing in Optimum's order.
Placement placement_for_quantizing(const std::string& text, const Resources& resources, const ModuleTree& tree,
                                   std::vector<Notice>& notices) {
  const Machine& machine = resources.machine;
  if (text.empty()) {
    notices.push_back({Level::message, default_device_map_message(machine)});
    return place(default_device_map(machine), machine, tree, true);
  }
  const DeviceMap map = parse_device_map(text, machine, tree, resources.max_memory);
  refuse_disk_offload(map);
  if (offloads_to_cpu(map)) notices.push_back({Level::warning, kCpuOffloadWarning});
  return place(map, machine, tree, !asks_for_no_placement(map));
}

}  // namespace

size_t writes_behind(const Placement& placement) {
  constexpr size_t kLinears = 8;
  const auto computes = [](const std::string& name) { return traits_of(name).computes_on_host; };
  return std::all_of(placement.devices.begin(), placement.devices.end(), computes) ? 1 : kLinears;
}

StateBytes state_bytes(const Facts& facts) {
  const auto size = [](DType dtype) { return static_cast<int64_t>(size_of(dtype)); };
  return {facts.config.state_width * size(facts.precision.residual),
          widest_input(facts.config) * size(facts.precision.computed)};
}

DType stored_dtype(const Checkpoint& checkpoint, const ModelConfig& config) {
  return parse_safetensors_dtype(checkpoint.tensor(embedding_tensor(config)).dtype).value_or(DType::f32);
}

Facts find_facts(Job& job) {
  check_numbers(job);
  Facts facts;
  facts.format = &format_of(job.recipe);
  facts.checkpoint = std::make_unique<Checkpoint>(job.model, job.max_read_rate);
  const Checkpoint& checkpoint = *facts.checkpoint;
  if (!checkpoint.quantization_config().is_null()) {
    if (!job.from_quantized) throw InputError(already_quantized(checkpoint));
    dequantize(*facts.checkpoint);
    facts.notices.push_back(
        {Level::warning, cat(job.model, ": its weights were rounded before: they are dequantized and rounded again, ",
                             "which loses more than rounding the unquantized model once")});
  }
  checkpoint.side_files();  // throws for what cannot be copied
  facts.config = parse_model_config(checkpoint);
  tell_and_refuse(checkpoint, facts.config, job.ignore_config_keys, facts.notices);
  facts.resources = find_resources(job.max_memory);
  facts.placement =
      placement_for_quantizing(job.device_map, facts.resources, module_tree(checkpoint, facts.config), facts.notices);
  const auto backend = open_backend(facts.placement.devices[0], {.threads = 1});
  if (job.recipe.method == Method::gptq) facts.workspace_bytes = backend->workspace_bytes();
  facts.precision = precision_of(stored_dtype(checkpoint, facts.config), job.precision, *backend);
  facts.batch_tokens = backend->batch_tokens(facts.precision.computed);
  facts.notices.push_back({Level::message, message_of(facts.precision)});
  const Model checked(checkpoint, *backend, facts.precision.computed);  // checks all tensors
  if (const std::string text = settle_group_size(job.recipe, facts.config); !text.empty())
    facts.notices.push_back({Level::message, text});
  if (job.recipe.average_bits != 0) {
    if (facts.config.experts.count > 0) {
      throw UnsupportedError(
          "`average_bits` measures step by step, which a model with experts has too many of: give `bits`, and rules "
          "for single modules",
          {.option = "average_bits", .file = {}, .tensor = {}});
    }
    facts.free_average = free_average(job.recipe, all_steps(facts.config));
    facts.widths = candidate_widths(job, all_steps(facts.config));
  }
  if (job.recipe.method == Method::gptq)
    facts.calibration = find_calibration(job, checkpoint, facts.config, facts.notices);
  return facts;
}

void tell_and_refuse(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& ignored_keys,
                     std::vector<Notice>& notices) {
  refuse_unread(config, ignored_keys, (checkpoint.folder() / "config.json").string());
  for (const auto& warnings : {checkpoint.warnings(), config.warnings}) {
    for (const std::string& text : warnings) notices.push_back({Level::warning, text});
  }
}

Placement placement_for_running(const Checkpoint& checkpoint, const ModelConfig& config, const std::string& device_map,
                                const Resources& resources, std::vector<Notice>& notices) {
  const ModuleTree tree = module_tree(checkpoint, config);
  if (!device_map.empty()) {
    // A map without an accelerator runs on the CPU, as accelerate's dispatch_model has it.
    const Machine only_the_map{.accelerators = {}, .cpu = resources.machine.cpu};
    return place(parse_device_map(device_map, resources.machine, tree, resources.max_memory), only_the_map, tree, true);
  }
  notices.push_back({Level::message, default_device_map_message(resources.machine)});
  return place(default_device_map(resources.machine), resources.machine, tree, true);
}

}  // namespace gptq
