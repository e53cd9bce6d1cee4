// The commands that need more than a call.
#pragma once

#include <stop_token>
#include <string>

#include <CLI/CLI.hpp>

#include "gptq/gptq.h"
#include "interrupt.h"
#include "options.h"

namespace gptq {

struct DemoOptions {
  std::string folder;  // empty: where it is installed, or in the source tree
  std::string keep;    // folder in which the quantized models stay; empty: they are removed
  int threads = 0;
  bool json = false, quiet = false;
};

// The demo model unquantized, rounded to nearest and quantized with GPTQ at 4 and 3 bits: one table, some text.
void run_demo(const DemoOptions& options, Interrupt& interrupt);

inline constexpr const char* kTextHelp = "text or records (.txt, .jsonl, .json, .csv, .tsv; also in .gz), - for stdin";

// The options of `gptq eval` and `gptq compare`; `quantized` and `positions_file` are compare's.
struct EvaluationOptions {
  Evaluation evaluation;
  std::string quantized, positions_file;
  GivenOptions given{evaluation_options()};
  bool json = false, quiet = false;
};

void add_evaluation_options(CLI::App& command, EvaluationOptions& options);
void add_comparison_options(CLI::App& command, EvaluationOptions& options);
void run_eval(EvaluationOptions& options, std::stop_token stop);
void run_compare(EvaluationOptions& options, std::stop_token stop);

// The options of `gptq generate` and `gptq chat`; `prompt` and `json` are generate's, `system` is chat's.
struct GenerationOptions {
  Generation generation;
  std::string prompt, system;
  GivenOptions given{generation_options()};
  bool json = false, quiet = false;
};

void add_generation_options(CLI::App& command, GenerationOptions& options);
void add_chat_options(CLI::App& command, GenerationOptions& options);
void run_generate(GenerationOptions& options, std::stop_token stop);
void run_chat(GenerationOptions& options, std::stop_token stop);

void run_plan(const QuantizeOptions& options, std::stop_token stop);

// The options of `gptq inspect`, `devices` and `tokenize`.
struct InspectionOptions {
  std::string model, text, text_key;
  bool json = false, verbose = false;
};

void run_inspect(const InspectionOptions& options, std::stop_token stop);
void run_devices(bool as_json);
void run_tokenize(const InspectionOptions& options, std::stop_token stop);

}  // namespace gptq
