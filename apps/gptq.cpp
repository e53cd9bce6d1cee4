// The command line of gptq: flags -> Job, messages and progress -> terminal, errors -> one sentence and an exit code
// (0 done, 1 device or internal error, 2 bad input, 3 the output exists, 129 and 130 interrupted).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <new>
#include <sstream>
#include <string_view>

#include <CLI/CLI.hpp>

#include "commands.h"
#include "failure.h"
#include "interrupt.h"
#include "options.h"
#include "output_file.h"
#include "printing.h"
#include "startup.h"
#include "terminal.h"

namespace gptq {
namespace {

void print_summary(const Report& report) {
  print("%s: %.3f bits per weight in %zu linears; weights %s -> %s; %.1f s, peak memory %s.\n", report.output,
        report.bits_per_weight, report.linears.size(), format_bytes(static_cast<double>(report.source_bytes)),
        format_bytes(static_cast<double>(report.output_bytes)), report.seconds,
        format_bytes(static_cast<double>(report.peak_memory_bytes)));
  std::vector<const LinearReport*> worst;
  for (const LinearReport& linear : report.linears) worst.push_back(&linear);
  std::sort(worst.begin(), worst.end(), [](const auto* a, const auto* b) { return a->error > b->error; });
  if (worst.size() > 3) worst.resize(3);
  std::string text;
  for (const LinearReport* linear : worst) {
    text += (text.empty() ? "" : ", ") + linear->name + formatted(" (%.2g)", linear->error);
  }
  print("Largest relative output errors: %s.\n", text);
  std::string loaders;
  for (const LoaderVerdict& verdict : report.plan.loaders) {
    if (verdict.accepts) loaders += (loaders.empty() ? "" : ", ") + verdict.loader;
  }
  print("Next: gptq eval %s --text FILE, or gptq compare %s %s --text FILE.\n", report.output, report.model,
        report.output);
  print("It loads in: %s (gptq inspect %s says more).\n", loaders.empty() ? "none that is known" : loaders,
        report.output);
}

void print_report(const Report& report, const QuantizeOptions& options) {
  if (options.json) {
    print_json(to_json(report));
  } else if (!options.quiet && stdout_is_open()) {
    if (options.verbose) {
      for (const LinearReport& linear : report.linears)
        print("%-48s loss %-12.5g error %.4g\n", linear.name, linear.loss, linear.error);
    }
    print_summary(report);
  }
  finish_stdout();
}

void run_quantize(const QuantizeOptions& options, Interrupt& interrupt) {
  constexpr const char* kIntact = "the quantized model is complete";
  Job job = make_job(options);
  if (options.json) require_stdout();
  refuse_to_replace_inputs(options, job);
  job.stop = interrupt.token();
  interrupt.remove_on_exit(job.output);
  OutputFile report_file("report", options.report_file);
  using Verbosity = Terminal::Verbosity;
  Terminal terminal(options.quiet ? Verbosity::quiet : options.verbose ? Verbosity::verbose : Verbosity::normal);
  Report report = quantize(job, terminal.listener());
  terminal.end_bar();
  if (report.skipped) {
    spell_flags(report);
    if (options.json) print("%s\n", to_json(report));
    if (!options.json && !options.quiet) print("%s: is there already, with this recipe.\n", report.output);
    return;
  }
  try {
    spell_flags(report);
    report_file.write(to_json(report) + "\n", kIntact);
    print_report(report, options);
  } catch (const StdoutError& error) {
    throw StdoutError(std::string(error.what()) + "; " + kIntact);
  } catch (const std::bad_alloc&) {
    throw OutOfMemory(std::string("out of memory for the report; ") + kIntact);
  }
}

// The commands and the options of each.
class Program {
 public:
  Program();
  void run(int argc, char** argv);

 private:
  // Adds a command, which `body` runs.
  CLI::App* add(const char* name, const char* description, std::function<void()> body);
  void add_jobs();
  void add_evaluations();
  void add_generations();
  void add_inspections();
  void add_demo();

  CLI::App app_{"GPTQ quantization of Hugging Face causal language models", "gptq"};
  std::vector<std::pair<CLI::App*, std::function<void()>>> commands_;
  QuantizeOptions quantize_, plan_;
  EvaluationOptions eval_, compare_;
  GenerationOptions generate_, chat_;
  InspectionOptions inspection_;
  DemoOptions demo_;
  Interrupt* interrupt_ = nullptr;  // while a command runs
};

Program::Program() {
  app_.require_subcommand(1);
  app_.set_version_flag("--version", version());
  app_.get_formatter()->column_width(39);
  add_jobs();
  add_evaluations();
  add_generations();
  add_inspections();
  add_demo();
}

CLI::App* Program::add(const char* name, const char* description, std::function<void()> body) {
  CLI::App* command = app_.add_subcommand(name, description);
  commands_.emplace_back(command, std::move(body));
  return command;
}

void Program::add_jobs() {
  CLI::App* command =
      add("quantize", "a model folder in, a GPTQ folder out", [this] { run_quantize(quantize_, *interrupt_); });
  add_job_options(*command, quantize_);
  add_run_options(*command, quantize_);
  command = add("plan", "what quantizing would take of time, memory and disk",
                [this] { run_plan(plan_, interrupt_->token()); });
  add_job_options(*command, plan_);
  add_run_options(*command, plan_);
  command->get_option("OUT")->required(false);
  command->add_flag("--presets", plan_.presets, "what each preset would take, side by side");
  command = add("devices", "what this machine has, with free memory", [this] { run_devices(inspection_.json); });
  command->add_flag("--json", inspection_.json, "as JSON on stdout");
}

void Program::add_evaluations() {
  CLI::App* command =
      add("eval", "perplexity of a plain or a quantized folder", [this] { run_eval(eval_, interrupt_->token()); });
  command->add_option("MODEL", eval_.evaluation.model, "model folder")->required();
  add_evaluation_options(*command, eval_);
  command = add("compare", "on each text: perplexity of both, KL divergence, share of equal top tokens",
                [this] { run_compare(compare_, interrupt_->token()); });
  command->add_option("MODEL", compare_.evaluation.model, "unquantized model folder")->required();
  command->add_option("QUANTIZED", compare_.quantized, "quantized folder")->required();
  add_comparison_options(*command, compare_);
}

void Program::add_generations() {
  add_generation_options(*add("generate", "what a plain or a quantized folder writes after a prompt",
                              [this] { run_generate(generate_, interrupt_->token()); }),
                         generate_);
  add_chat_options(*add("chat", "talk to a model: a message a line, by its chat template",
                        [this] { run_chat(chat_, interrupt_->token()); }),
                   chat_);
}

void Program::add_inspections() {
  CLI::App* command = add("inspect", "what is in a folder, and which loaders accept it",
                          [this] { run_inspect(inspection_, interrupt_->token()); });
  command->add_option("MODEL", inspection_.model, "model folder")->required();
  command->add_flag("--json", inspection_.json, "everything as JSON on stdout");
  command->add_flag("--verbose", inspection_.verbose, "list every module");
  command = add("tokenize", "token ids of a text, one JSON array a line",
                [this] { run_tokenize(inspection_, interrupt_->token()); });
  command->add_option("MODEL", inspection_.model, "folder with tokenizer.json")->required();
  command->add_option("--text", inspection_.text, kTextHelp)->required();
  command->add_option("--text-key", inspection_.text_key, "key or column that has the text of a record");
}

void Program::add_demo() {
  CLI::App* command =
      add("demo", "a small trained model: unquantized, rounded, GPTQ", [this] { run_demo(demo_, *interrupt_); });
  command->add_option("--folder", demo_.folder, "where the demo is, if neither installed nor in its source tree");
  command->add_option("--keep", demo_.keep, "keep the quantized models in this folder");
  command->add_option("--threads", demo_.threads, "0: all cores")->capture_default_str();
  command->add_flag("--json", demo_.json, "print the table as JSON on stdout, nothing else there");
  command->add_flag("--quiet", demo_.quiet, "no progress");
}

// The key of the first flag in a message: "Could not convert: --max-shard-size = x" -> "max_shard_size".
std::string key_of_flag(const std::string& text) {
  const size_t start = text.find("--");
  if (start == std::string::npos) return {};
  std::string key = text.substr(start + 2, text.find_first_of(" :,=", start) - start - 2);
  std::replace(key.begin(), key.end(), '-', '_');
  return key;
}

void Program::run(int argc, char** argv) {
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) {
      throw InputError(std::string(error.what()) + " (see gptq --help)",
                       {.option = key_of_flag(error.what()), .file = {}, .tensor = {}});
    }
    require_stdout();
    std::ostringstream text;  // --help, --version
    app_.exit(error, text);
    write_stdout(text.str());
    return finish_stdout();
  }

  Interrupt interrupt;
  interrupt_ = &interrupt;
  for (const auto& [command, body] : commands_) {
    if (!*command) continue;
    if (command->get_name() != "quantize") require_stdout();
    body();
  }
  finish_stdout();
}

int run(int argc, char** argv) {
  try {
    tell_failures(std::count(argv, argv + argc, std::string_view("--json")) > 0);
    Program().run(argc, argv);
    return 0;
  } catch (...) {
    return tell_failure(std::current_exception());
  }
}

// Without the destructors of libraries: one may wait for threads that never end. Sanitizers have theirs to say.
[[noreturn]] void leave(int code) {
  std::fflush(nullptr);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  std::exit(code);
#else
  std::_Exit(code);
#endif
}

}  // namespace
}  // namespace gptq

int main(int argc, char** argv) {
  gptq::prepare_process();
  gptq::leave(gptq::run(argc, argv));
}
