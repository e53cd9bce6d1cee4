// Flags -> Job: the words of the command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "gptq/gptq.h"

namespace gptq {

// What `gptq quantize` was told. Options that a recipe file or a preset also sets are empty unless given.
struct QuantizeOptions {
  Job job;
  std::string max_shard_size = "5GB", max_read_rate, report_file, recipe_file;
  std::optional<std::string> preset, scale_search, order, targets, refine, method, checkpoint_format, modules;
  std::optional<double> damp_percent, alpha, average_bits;
  std::optional<int> bits;
  std::optional<int64_t> group_size;
  std::optional<int64_t> expert_tokens;
  bool moe_calibrate_all_experts = false;
  bool asym = false, lm_head = false, signed_scales = false, no_signed_scales = false, no_true_sequential = false,
       desc_act = false, static_groups = false, no_static_groups = false;
  bool json = false, quiet = false, verbose = false;
  bool presets = false;  // of plan
};

// The options of the job itself, and those of a run of it.
void add_job_options(CLI::App& command, QuantizeOptions& options);
void add_run_options(CLI::App& command, QuantizeOptions& options);
// --device-map, --max-memory, --precision and --threads, as quantize, plan, eval and compare take them.
void add_device_options(CLI::App& command, std::string& device_map, std::string& max_memory, std::string& precision,
                        int& threads);

// Throws InputError for words that mean nothing.
Job make_job(const QuantizeOptions& options);

}  // namespace gptq
