// Flags -> Job: the words of the command line.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "gptq/gptq.h"

namespace gptq {

// What `gptq quantize` was told. Options that a preset also sets are empty unless given.
struct QuantizeOptions {
  Job job;
  std::string preset = "default", max_shard_size = "5GB", max_read_rate, report_file, modules;
  std::optional<std::string> scale_search, order, targets, refine;
  std::optional<double> damp_percent, alpha;
  bool asym = false, signed_scales = false, no_signed_scales = false, no_true_sequential = false, desc_act = false,
       static_groups = false, no_static_groups = false;
  std::string method = "gptq", checkpoint_format = "auto";
  int bits = 4;
  int64_t group_size = 128;
  bool json = false, quiet = false, verbose = false;
  bool presets = false;  // of plan
};

// The options of the job itself, and those of a run of it.
void add_job_options(CLI::App& command, QuantizeOptions& options);
void add_run_options(CLI::App& command, QuantizeOptions& options);
// --device-map and --max-memory, as quantize, plan, eval and compare take them.
void add_device_options(CLI::App& command, std::string& device_map, std::string& max_memory);

// Throws InputError for words that mean nothing.
Job make_job(const QuantizeOptions& options);

}  // namespace gptq
