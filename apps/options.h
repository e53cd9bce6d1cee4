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
  std::string preset = "default", max_shard_size = "5GB", report_file, modules;
  std::optional<std::string> scale_search, order;
  std::optional<double> damp_percent;
  bool asym = false, no_true_sequential = false, desc_act = false, static_groups = false, no_static_groups = false;
  std::string method = "gptq", checkpoint_format = "auto";
  int bits = 4;
  int64_t group_size = 128;
  bool json = false, quiet = false, verbose = false;
};

void add_options(CLI::App& command, QuantizeOptions& options);

// Throws InputError for words that mean nothing.
Job make_job(const QuantizeOptions& options);

int64_t parse_bytes(const std::string& text);  // "5GB", "800MiB", "123"; throws InputError

}  // namespace gptq
