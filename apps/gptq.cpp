// The command line of gptq: flags -> Job, messages and progress -> terminal, errors -> one sentence and an exit code
// (0 done, 1 device or internal error, 2 bad input, 130 interrupted).
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <new>
#include <thread>

#include <CLI/CLI.hpp>
#include <semaphore.h>

#include "commands.h"
#include "options.h"
#include "output_file.h"
#include "startup.h"
#include "terminal.h"

namespace gptq {
namespace {

// The one thing that a signal handler can reach: it may only post here.
sem_t interrupted;

// Turns SIGINT and SIGTERM into a stop request. Where the work at hand cannot end within `kPatience`, what it has
// written so far is removed and the program exits at once.
class Interrupt {
 public:
  Interrupt() {
    sem_init(&interrupted, 0, 0);
    struct sigaction action {};
    action.sa_handler = [](int) { sem_post(&interrupted); };
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, nullptr);
    sigaction(SIGTERM, &action, nullptr);
    waiter_ = std::thread([this] { wait(); });
  }
  ~Interrupt() {
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    finished_.notify_all();
    sem_post(&interrupted);  // nothing to wait for any more
    waiter_.join();
  }
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  std::stop_token token() const { return source_.get_token(); }
  void remove_on_exit(const std::string& output) {
    std::lock_guard lock(mutex_);
    output_ = output;
  }

 private:
  static constexpr auto kPatience = std::chrono::milliseconds(700);

  void wait() {
    while (sem_wait(&interrupted) != 0) {
    }
    std::unique_lock lock(mutex_);
    if (done_) return;
    source_.request_stop();
    if (finished_.wait_for(lock, kPatience, [this] { return done_; })) return;
    if (!output_.empty()) remove_partial_output(output_);
    std::fputs("\ngptq: interrupted\n", stderr);
    std::_Exit(130);
  }

  std::stop_source source_;
  std::mutex mutex_;
  std::condition_variable finished_;
  bool done_ = false;
  std::string output_;
  std::thread waiter_;
};

void print_summary(const Report& report) {
  std::printf("%s: %.3f bits per weight in %zu linears; weights %s -> %s; %.1f s, peak memory %s.\n",
              report.output.c_str(), report.bits_per_weight, report.linears.size(),
              format_bytes(static_cast<double>(report.source_bytes)).c_str(),
              format_bytes(static_cast<double>(report.output_bytes)).c_str(), report.seconds,
              format_bytes(static_cast<double>(report.peak_memory_bytes)).c_str());
  std::vector<const LinearReport*> worst;
  for (const LinearReport& linear : report.linears) worst.push_back(&linear);
  std::sort(worst.begin(), worst.end(), [](const auto* a, const auto* b) { return a->error > b->error; });
  if (worst.size() > 3) worst.resize(3);
  std::string text;
  for (const LinearReport* linear : worst) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, " (%.2g)", linear->error);
    text += (text.empty() ? "" : ", ") + linear->name + buffer;
  }
  std::printf("Largest relative output errors: %s.\n", text.c_str());
  std::string loaders;
  for (const LoaderVerdict& verdict : report.plan.loaders) {
    if (verdict.accepts) loaders += (loaders.empty() ? "" : ", ") + verdict.loader;
  }
  std::printf("Next: gptq eval %s --text FILE, or gptq compare %s %s --text FILE.\n", report.output.c_str(),
              report.model.c_str(), report.output.c_str());
  std::printf("It loads in: %s (gptq inspect %s says more).\n",
              loaders.empty() ? "none that is known" : loaders.c_str(), report.output.c_str());
}

void run_quantize(const QuantizeOptions& options, Interrupt& interrupt) {
  Job job = make_job(options);
  job.stop = interrupt.token();
  interrupt.remove_on_exit(job.output);
  OutputFile report_file("--report", options.report_file);
  using Verbosity = Terminal::Verbosity;
  Terminal terminal(options.quiet ? Verbosity::quiet : options.verbose ? Verbosity::verbose : Verbosity::normal);
  Report report = quantize(job, terminal.listener());
  terminal.end_bar();
  spell_flags(report);
  report_file.write(to_json(report) + "\n", "the quantized model is complete");
  if (options.json) {
    std::printf("%s\n", to_json(report).c_str());
  } else if (!options.quiet) {
    if (options.verbose) {
      for (const LinearReport& linear : report.linears) {
        std::printf("%-48s loss %-12.5g error %.4g\n", linear.name.c_str(), linear.loss, linear.error);
      }
    }
    print_summary(report);
  }
}

// The commands and the options of each.
class Program {
 public:
  Program();
  int run(int argc, char** argv);

 private:
  // Adds a command, which `body` runs.
  CLI::App* add(const char* name, const char* description, std::function<void()> body);
  void add_jobs();
  void add_evaluations();
  void add_inspections();
  void add_demo();

  CLI::App app_{"GPTQ quantization of Hugging Face causal language models", "gptq"};
  std::vector<std::pair<CLI::App*, std::function<void()>>> commands_;
  QuantizeOptions quantize_, plan_;
  EvaluationOptions eval_, compare_;
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

void Program::add_inspections() {
  CLI::App* command = add("inspect", "what is in a folder, and which loaders accept it",
                          [this] { run_inspect(inspection_, interrupt_->token()); });
  command->add_option("MODEL", inspection_.model, "model folder")->required();
  command->add_flag("--json", inspection_.json, "everything as JSON on stdout");
  command->add_flag("--verbose", inspection_.verbose, "list every module");
  command = add("tokenize", "token ids of a text, one JSON array a line",
                [this] { run_tokenize(inspection_, interrupt_->token()); });
  command->add_option("MODEL", inspection_.model, "folder with tokenizer.json")->required();
  command->add_option("--text", inspection_.text, ".txt, .jsonl (text, messages or input_ids), - for stdin")
      ->required();
}

void Program::add_demo() {
  CLI::App* command = add("demo", "a small trained model: unquantized, rounded, GPTQ",
                          [this] { run_demo(demo_, interrupt_->token()); });
  command->add_option("--folder", demo_.folder, "where the demo is, if neither installed nor in its source tree");
  command->add_option("--keep", demo_.keep, "keep the quantized models in this folder");
  command->add_option("--threads", demo_.threads, "0: all cores")->capture_default_str();
  command->add_flag("--json", demo_.json, "print the table as JSON on stdout, nothing else there");
  command->add_flag("--quiet", demo_.quiet, "no progress");
}

int Program::run(int argc, char** argv) {
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app_.exit(error);  // --help, --version
    std::fprintf(stderr, "gptq: %s (see gptq --help)\n", error.what());
    return 2;
  }

  Interrupt interrupt;
  interrupt_ = &interrupt;
  try {
    for (const auto& [command, body] : commands_) {
      if (*command) body();
    }
    return 0;
  } catch (const Cancelled&) {
    std::fputs("gptq: interrupted\n", stderr);
    return 130;
  } catch (const InputError& error) {
    std::fprintf(stderr, "gptq: %s\n", with_flags(error.what()).c_str());
    return 2;
  } catch (const std::bad_alloc&) {
    std::fputs("gptq: out of memory: give the program more, or take fewer --samples\n", stderr);
    return 1;
  } catch (const Error& error) {
    std::fprintf(stderr, "gptq: %s\n", with_flags(error.what()).c_str());
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gptq: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace gptq

int main(int argc, char** argv) {
  gptq::prepare_process();
  return gptq::Program().run(argc, argv);
}
