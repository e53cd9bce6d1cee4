// Flags -> Job, Evaluation and Generation: the words of the command line, which come from the tables of options
// (gptq/options.h).
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "gptq/gptq.h"

namespace gptq {

// Options of a table that were given on the command line.
class GivenOptions {
 public:
  explicit GivenOptions(const std::vector<OptionInfo>& options);
  void add_to(CLI::App& command);

  bool has(std::string_view key) const;
  // Sets the given ones, in the table's order. Throws InputError for words that mean nothing, or that contradict each
  // other.
  template <typename Struct>
  void apply(Struct& target) const;

 private:
  struct Given {
    const OptionInfo* info;
    bool on = false, off = false;
    std::optional<int64_t> integer;
    std::optional<uint64_t> natural;
    std::optional<double> number;
    std::optional<std::string> text;
    std::optional<OptionValue> value() const;
  };
  std::deque<Given> given_;  // whose elements stay where they are: the parser holds their addresses
};

// The options of `gptq quantize` and `gptq plan`. The job's own that are not given have their defaults.
struct QuantizeOptions {
  std::string model, output, report_file, recipe_file;
  std::optional<std::string> preset;
  GivenOptions given{job_options()};
  bool json = false, quiet = false, verbose = false;
  bool presets = false;  // of plan
};

// The options of the job itself, and those of a run of it.
void add_job_options(CLI::App& command, QuantizeOptions& options);
void add_run_options(CLI::App& command, QuantizeOptions& options);

// Throws InputError for words that mean nothing.
Job make_job(const QuantizeOptions& options);

// Throws InputError for a path to write that would replace what the job reads, or would not survive it.
void refuse_to_replace_inputs(const QuantizeOptions& options, const Job& job);

// A message of the library with its options as flags: "--desc-act".
std::string with_flags(const std::string& text);
// The same of all texts in a plan or a report.
void spell_flags(Plan& plan);
void spell_flags(Report& report);

}  // namespace gptq
