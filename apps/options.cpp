#include "options.h"

#include <map>
#include <sstream>

#include <nlohmann/json.hpp>

namespace gptq {
namespace {

template <typename Value>
Value choice(const std::string& flag, const std::string& word, const std::map<std::string, Value>& choices) {
  if (const auto found = choices.find(word); found != choices.end()) return found->second;
  std::string known;
  for (const auto& entry : choices) known += (known.empty() ? "" : ", ") + entry.first;
  throw InputError(flag + " " + word + ": there are " + known);
}

// A JSON list of lists of names, as Optimum takes it, or names with commas.
std::vector<std::vector<std::string>> parse_modules(const std::string& text) {
  if (text.empty()) return {};
  if (text.front() == '[') {
    try {
      const auto json = nlohmann::json::parse(text);
      if (!json.empty() && json.front().is_string()) return {json.get<std::vector<std::string>>()};
      return json.get<std::vector<std::vector<std::string>>>();
    } catch (const nlohmann::json::exception&) {
      throw InputError("--modules-in-block-to-quantize " + text +
                       ": give a JSON list of lists of names, or names with commas");
    }
  }
  std::vector<std::string> names;
  std::istringstream stream(text);
  for (std::string name; std::getline(stream, name, ',');) names.push_back(name);
  return {names};
}

}  // namespace

void add_device_options(CLI::App& command, std::string& device_map, std::string& max_memory, std::string& precision,
                        int& threads) {
  command.add_option("--device-map", device_map,
                     "JSON of modules to devices, a file with it, a device, or auto, balanced, balanced_low_0, "
                     "sequential");
  command.add_option("--max-memory", max_memory,
                     "JSON of devices to sizes: {\"cuda:0\": \"20GiB\", \"cpu\": \"64GiB\"}");
  command.add_option("--precision", precision, "fp32, bf16, fp16; auto: the checkpoint's if fast")
      ->capture_default_str();
  command.add_option("--threads", threads, "0: all cores")->capture_default_str();
}

void add_job_options(CLI::App& command, QuantizeOptions& o) {
  command.add_option("MODEL", o.job.model, "Hugging Face model folder")->required();
  command.add_option("--calibration", o.job.calibration.file,
                     ".txt, .jsonl (text, messages or input_ids), - for stdin");
  command.add_option("--samples", o.job.calibration.samples, "calibration sequences")->capture_default_str();
  command.add_option("--sequence-length", o.job.calibration.sequence_length, "tokens of a sequence")
      ->capture_default_str();
  command.add_option("--batch-size", o.job.batch_size, "sequences at a time; 0: 2048 tokens or 8192")
      ->capture_default_str();
  command.add_option("--seed", o.job.calibration.seed, "which sequences; 0: spread evenly")->capture_default_str();
  command.add_option("--bits", o.bits, "2, 3, 4 or 8 [4]");
  command.add_option("--average-bits", o.average_bits,
                     "bits on average, such as 3.5: what fewer bits cost is measured, and chosen step by step");
  command.add_option("--for", o.job.loader,
                     "a loader that must take the output: vllm, sglang, transformers, gptqmodel, exllamav2");
  command.add_option("--group-size", o.group_size, "inputs that share a scale; -1: all [128]");
  command.add_flag("--asym", o.asym, "zero points of their own (default: symmetric)");
  command.add_option("--preset", o.preset,
                     "default, best, paper or group-aware [default]; a recipe file and single options override it");
  command.add_option("--recipe", o.recipe_file,
                     "JSON file of such options by their names, with rules for single modules (dynamic), such as a "
                     "quantize_config.json; single options override it");
  command.add_option("--scale-search", o.scale_search, "diag, mse or minmax [diag]");
  command.add_option("--order", o.order, "of columns: diagonal, group-aware or natural [diagonal]");
  command.add_flag("--static-groups", o.static_groups, "all scales before any column [yes]");
  command.add_flag("--no-static-groups", o.no_static_groups, "a group's scale when its first column comes");
  command.add_flag("--desc-act", o.desc_act, "groups in the order of columns: shuffled g_idx");
  command.add_flag("--signed-scales", o.signed_scales,
                   "scales may be negative, code 0 standing for the largest weight [at 2 and 3 bits]");
  command.add_flag("--no-signed-scales", o.no_signed_scales, "scales are positive");
  command.add_option("--targets", o.targets,
                     "what codes reproduce: weights, corrected (for what blocks before have lost; a second stream) or "
                     "gptaq [weights]");
  command.add_option("--alpha", o.alpha, "share of the correction [0.5, at 2 bits 0.25]");
  command.add_option("--refine", o.refine,
                     "after the columns: r (refit scales) and cN (N sweeps over the codes), as in 'r c2 r', or none "
                     "[c4 at 3 bits, r c2 r c2 r at 2]");
  command.add_option("--damp-percent", o.damp_percent, "damping, a share of the mean diagonal [0.01]");
  command.add_flag("--no-true-sequential", o.no_true_sequential, "all Hessians of a block before any rounding");
  command.add_option("--modules-in-block-to-quantize", o.modules, "names with commas, or Optimum's JSON lists [all]");
  command.add_option("--expert-tokens", o.expert_tokens, "experts that see fewer are calibrated with all tokens [256]");
  command.add_flag("--moe-calibrate-all-experts", o.moe_calibrate_all_experts,
                   "every expert is calibrated with all tokens");
  command.add_flag("--lm-head", o.lm_head, "quantize the output head too (not where it is the embedding)");
  command.add_option("--method", o.method, "gptq, or rtn: round to nearest [gptq]");
  command.add_option("--checkpoint-format", o.checkpoint_format,
                     "gptq, gptq_v2, compressed-tensors; auto: gptq, or gptq_v2 with zero points [auto]");
  command.add_option("--max-shard-size", o.max_shard_size, "of one safetensors file")->capture_default_str();
  add_device_options(command, o.job.device_map, o.job.max_memory, o.job.precision, o.job.threads);
  command.add_option("--spill-dir", o.job.spill_dir, "folder for hidden states that find no room in memory");
  command.add_option("--max-read-rate", o.max_read_rate, "bytes a second read from the model's disk, such as 200MB");
}

void add_run_options(CLI::App& command, QuantizeOptions& o) {
  command.add_option("OUT", o.job.output, "folder to write")->required();
  command.add_flag("--overwrite", o.job.overwrite, "replace OUT once the new one is whole");
  command.add_option("--report", o.report_file, "write the full report as JSON");
  command.add_flag("--json", o.json, "print the report as JSON on stdout, nothing else there");
  command.add_flag("--quiet", o.quiet, "no progress, no summary");
  command.add_flag("--verbose", o.verbose, "a line for every step and linear");
}

Job make_job(const QuantizeOptions& o) {
  Job job = o.job;
  if (o.quiet && o.verbose) throw InputError("--quiet and --verbose contradict each other");
  if (job.threads < 0)
    throw InputError("--threads " + std::to_string(job.threads) + ": give a positive number, or 0 for all cores");
  job.max_shard_bytes = parse_bytes(o.max_shard_size);
  if (!o.max_read_rate.empty()) job.max_read_rate = parse_bytes(o.max_read_rate);
  Recipe& recipe = job.recipe = recipe_preset(o.preset.value_or("default"));
  if (!o.recipe_file.empty()) recipe = read_recipe(o.recipe_file, recipe);
  if (o.bits && o.average_bits)
    throw InputError("--bits and --average-bits contradict each other: name the one that is meant");
  if (o.bits) {
    recipe.bits = *o.bits;
    recipe.average_bits = 0;
  }
  recipe.average_bits = o.average_bits.value_or(recipe.average_bits);
  recipe.group_size = o.group_size.value_or(recipe.group_size);
  if (o.asym) recipe.sym = false;
  if (o.lm_head) recipe.lm_head = true;
  recipe.expert_tokens = o.expert_tokens.value_or(recipe.expert_tokens);
  if (o.moe_calibrate_all_experts) recipe.moe_calibrate_all_experts = true;
  if (o.method) recipe.method = choice<Method>("--method", *o.method, {{"gptq", Method::gptq}, {"rtn", Method::rtn}});
  if (o.checkpoint_format) {
    recipe.checkpoint_format = choice<CheckpointFormat>("--checkpoint-format", *o.checkpoint_format,
                                                        {{"auto", CheckpointFormat::automatic},
                                                         {"gptq", CheckpointFormat::gptq},
                                                         {"gptq_v2", CheckpointFormat::gptq_v2},
                                                         {"compressed-tensors", CheckpointFormat::compressed_tensors}});
  }
  if (o.scale_search) {
    recipe.scale_search =
        choice<ScaleSearch>("--scale-search", *o.scale_search,
                            {{"diag", ScaleSearch::diag}, {"mse", ScaleSearch::mse}, {"minmax", ScaleSearch::minmax}});
    if (recipe.method == Method::rtn && recipe.scale_search == ScaleSearch::diag) {
      throw InputError("--scale-search diag needs a Hessian, and --method rtn has none: use mse or minmax");
    }
  }
  if (o.order) {
    recipe.order = choice<Order>(
        "--order", *o.order,
        {{"diagonal", Order::diagonal}, {"group-aware", Order::group_aware}, {"natural", Order::natural}});
  }
  if (o.desc_act) {
    recipe.desc_act = true;
    recipe.static_groups = false;
    if (!o.order) recipe.order = Order::diagonal;
  }
  if (o.static_groups && o.no_static_groups)
    throw InputError("--static-groups and --no-static-groups contradict each other");
  if (o.static_groups || o.no_static_groups) recipe.static_groups = o.static_groups;
  if (o.damp_percent) recipe.damp_percent = *o.damp_percent;
  if (o.signed_scales && o.no_signed_scales)
    throw InputError("--signed-scales and --no-signed-scales contradict each other");
  if (o.signed_scales || o.no_signed_scales) recipe.signed_scales = o.signed_scales;
  if (o.targets) {
    recipe.targets =
        choice<Targets>("--targets", *o.targets,
                        {{"weights", Targets::weights}, {"corrected", Targets::corrected}, {"gptaq", Targets::gptaq}});
  }
  if (o.alpha) recipe.alpha = o.alpha;
  if (o.refine) recipe.refine = *o.refine;
  if (o.no_true_sequential) recipe.true_sequential = false;
  if (o.modules) recipe.modules_in_block_to_quantize = parse_modules(*o.modules);
  if (recipe.method == Method::rtn && o.desc_act)
    throw InputError("--desc-act orders GPTQ's columns, and --method rtn has no order: drop one");
  return job;
}

}  // namespace gptq
