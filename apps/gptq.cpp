// The command line of gptq: flags -> Job, Progress -> terminal, errors -> one sentence and an exit code
// (0 done, 1 device or internal error, 2 bad input, 130 interrupted).
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>

#include <CLI/CLI.hpp>
#include <malloc.h>
#include <nlohmann/json.hpp>
#include <semaphore.h>

#include "commands.h"
#include "options.h"
#include "output_file.h"
#include "terminal.h"

namespace gptq {
namespace {

using Json = nlohmann::ordered_json;

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
  const Report report = quantize(job, [&](const Progress& progress) { terminal(progress); });
  terminal.end_bar();
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

void print_plan(const Plan& plan) {
  const auto bytes = [](int64_t count) { return format_bytes(static_cast<double>(count)); };
  for (const std::string& text : plan.messages) std::printf("%s\n", text.c_str());
  for (const std::string& text : plan.warnings) std::printf("warning: %s\n", text.c_str());
  std::printf("\n%-26s %-12s %-28s %10s\n", "module", "computes on", "stays", "weights");
  // Neighbours that differ in their number only are one line.
  for (size_t i = 0; i < plan.units.size();) {
    const Plan::Unit& first = plan.units[i];
    const std::string stem = first.module.substr(0, first.module.rfind('.') + 1);
    size_t end = i + 1;
    int64_t total = first.bytes;
    const auto is_block = [&](const Plan::Unit& unit) {
      return unit.module.starts_with(stem) &&
             unit.module.find_first_not_of("0123456789", stem.size()) == std::string::npos;
    };
    for (; end < plan.units.size() && is_block(first) && is_block(plan.units[end]) &&
           plan.units[end].computes_on == first.computes_on && plan.units[end].stays == first.stays;
         ++end)
      total += plan.units[end].bytes;
    const std::string name =
        end - i == 1 ? first.module : first.module + " ... " + plan.units[end - 1].module.substr(stem.size());
    const std::string stays = first.visits            ? "cpu, visits " + first.computes_on
                              : first.stays == "disk" ? "checkpoint"
                                                      : "checkpoint, streams";
    std::printf("%-26s %-12s %-28s %10s\n", name.c_str(), first.computes_on.c_str(), stays.c_str(),
                bytes(total).c_str());
    i = end;
  }
  std::printf("\ncalibration  %lld sequences, %lld tokens; states wait %s\n", static_cast<long long>(plan.sequences),
              static_cast<long long>(plan.tokens),
              plan.states == "spill"  ? ("in a spill file of " + bytes(plan.spill_bytes)).c_str()
              : plan.states == "host" ? "in host memory"
                                      : "where they are computed");
  const auto print_memory = [&](const Plan::Device& device) {
    std::printf("%-12s peak %s%s (%s)\n", device.name.c_str(), bytes(device.peak_bytes).c_str(),
                device.limit_bytes > 0 ? (" of " + bytes(device.limit_bytes)).c_str() : "", device.description.c_str());
  };
  for (const Plan::Device& device : plan.accelerators) print_memory(device);
  print_memory(plan.host);
  std::printf("weights      %s -> %s on disk (%lld bytes), %.3f bits per weight, %s%s\n",
              bytes(plan.source_bytes).c_str(), bytes(plan.output_bytes).c_str(),
              static_cast<long long>(plan.output_bytes), plan.bits_per_weight, plan.checkpoint_format.c_str(),
              plan.read_ahead ? "" : "; blocks are not read ahead, for want of memory");
  std::printf("time         about %s:", format_seconds(plan.seconds).c_str());
  for (const auto& [stage, seconds] : plan.stage_seconds) std::printf(" %s %.1f s,", stage.c_str(), seconds);
  std::printf(" in %s\n", plan.compute_dtype.c_str());
  for (const LoaderVerdict& verdict : plan.loaders) {
    std::printf("  %-34s %s%s%s\n", verdict.loader.c_str(), verdict.accepts ? "yes" : "no",
                verdict.reason.empty() ? "" : ": ", verdict.reason.c_str());
  }
}

// What each preset would take of this machine, everything else being as asked for.
void run_plan_of_presets(QuantizeOptions options) {
  Json rows = Json::array();
  if (!options.json) std::printf("%-12s %10s %12s %12s %10s\n", "preset", "time", "device", "memory", "output");
  for (const char* preset : {"default", "best", "paper", "group-aware"}) {
    options.preset = preset;
    const Plan result = plan(make_job(options));
    int64_t device = 0;  // the fullest
    for (const Plan::Device& accelerator : result.accelerators) device = std::max(device, accelerator.peak_bytes);
    if (options.json) {
      rows.push_back({{"preset", preset}, {"plan", Json::parse(to_json(result))}});
      continue;
    }
    const auto bytes = [](int64_t count) { return format_bytes(static_cast<double>(count)); };
    std::printf("%-12s %10s %12s %12s %10s\n", preset, format_seconds(result.seconds).c_str(),
                device > 0 ? bytes(device).c_str() : "-", bytes(result.host.peak_bytes).c_str(),
                bytes(result.output_bytes).c_str());
  }
  if (options.json) std::printf("%s\n", rows.dump(2).c_str());
}

void run_plan(const QuantizeOptions& options) {
  if (options.presets) return run_plan_of_presets(options);
  const Plan result = plan(make_job(options));
  options.json ? static_cast<void>(std::printf("%s\n", to_json(result).c_str())) : print_plan(result);
}

void run_devices(bool as_json) {
  Json json = Json::array();
  for (const DeviceSummary& device : devices()) {
    json.push_back({{"name", device.name},
                    {"description", device.description},
                    {"total_bytes", device.total_bytes},
                    {"free_bytes", device.free_bytes}});
    if (as_json) continue;
    std::printf("%-8s %s, %s free of %s\n", device.name.c_str(), device.description.c_str(),
                format_bytes(static_cast<double>(device.free_bytes)).c_str(),
                format_bytes(static_cast<double>(device.total_bytes)).c_str());
  }
  if (as_json) {
    std::printf("%s\n", json.dump(2).c_str());
    return;
  }
  std::printf("sim:N    simulated accelerators, as many as a --device-map names: a rehearsal on the CPU\n");
}

Json to_json(const Inspection& inspection) {
  Json json = {{"model", inspection.model},
               {"model_type", inspection.model_type},
               {"parameters", inspection.parameters},
               {"bytes", inspection.bytes},
               {"blocks", inspection.blocks},
               {"hidden", inspection.hidden},
               {"intermediate", inspection.intermediate},
               {"heads", inspection.heads},
               {"kv_heads", inspection.kv_heads},
               {"head_dim", inspection.head_dim},
               {"vocabulary", inspection.vocabulary},
               {"tied_embeddings", inspection.tied_embeddings}};
  json["quantization"] = nullptr;
  if (!inspection.checkpoint_format.empty()) {
    json["quantization"] = {{"checkpoint_format", inspection.checkpoint_format},
                            {"bits", inspection.bits},
                            {"group_size", inspection.group_size},
                            {"sym", inspection.sym},
                            {"desc_act", inspection.desc_act},
                            {"signed_scales", inspection.signed_scales}};
  }
  json["modules"] = Json::array();
  for (const auto& module : inspection.modules) {
    Json entry = {{"name", module.name}, {"dtype", module.dtype}, {"shape", module.shape}, {"bytes", module.bytes}};
    if (module.bits != 0) {
      entry["bits"] = module.bits;
      entry["group_size"] = module.group_size;
    }
    json["modules"].push_back(std::move(entry));
  }
  json["loaders"] = Json::array();
  for (const LoaderVerdict& verdict : inspection.loaders) {
    json["loaders"].push_back({{"loader", verdict.loader}, {"accepts", verdict.accepts}, {"reason", verdict.reason}});
  }
  return json;
}

void run_inspect(const std::string& model, bool as_json, bool verbose) {
  const Inspection found = inspect(model);
  if (as_json) {
    std::printf("%s\n", to_json(found).dump(2).c_str());
    return;
  }
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  std::printf("%s: %s, %.1f million parameters, %s\n", model.c_str(), found.model_type.c_str(),
              static_cast<double>(found.parameters) / 1e6, format_bytes(static_cast<double>(found.bytes)).c_str());
  std::printf(
      "%lld blocks, hidden %lld, intermediate %lld, %lld heads (%lld for keys) of %lld, vocabulary %lld, %s "
      "embeddings\n",
      number(found.blocks), number(found.hidden), number(found.intermediate), number(found.heads),
      number(found.kv_heads), number(found.head_dim), number(found.vocabulary),
      found.tied_embeddings ? "tied" : "untied");
  if (found.checkpoint_format.empty()) {
    std::printf("not quantized\n");
  } else {
    std::printf("%s: %d bits, group %lld, %s, desc_act %s\n", found.checkpoint_format.c_str(), found.bits,
                number(found.group_size),
                found.signed_scales ? "symmetric, signed scales"
                : found.sym         ? "symmetric"
                                    : "asymmetric",
                found.desc_act ? "true" : "false");
  }
  for (const LoaderVerdict& verdict : found.loaders) {
    std::printf("  %-34s %s%s%s\n", verdict.loader.c_str(), verdict.accepts ? "yes" : "no",
                verdict.reason.empty() ? "" : ": ", verdict.reason.c_str());
  }
  if (!verbose) return;
  int dtype_width = 5;
  for (const auto& module : found.modules) dtype_width = std::max(dtype_width, static_cast<int>(module.dtype.size()));
  for (const auto& module : found.modules) {
    std::string shape;
    for (const int64_t size : module.shape) shape += (shape.empty() ? "" : " x ") + std::to_string(size);
    std::printf("  %-52s %-*s %-16s", module.name.c_str(), dtype_width, module.dtype.c_str(), shape.c_str());
    if (module.bits != 0) std::printf(" %d bits, group %lld", module.bits, number(module.group_size));
    std::printf("\n");
  }
}

void run_tokenize(const std::string& model, const std::string& text) {
  for (const auto& document : tokenize(model, text)) std::printf("%s\n", Json(document).dump().c_str());
}

int run(int argc, char** argv) {
  CLI::App app("GPTQ quantization of Hugging Face causal language models", "gptq");
  app.require_subcommand(1);
  app.set_version_flag("--version", version());
  app.get_formatter()->column_width(39);

  QuantizeOptions quantize_options;
  CLI::App* quantize_command = app.add_subcommand("quantize", "a model folder in, a GPTQ folder out");
  add_job_options(*quantize_command, quantize_options);
  add_run_options(*quantize_command, quantize_options);

  QuantizeOptions plan_options;
  CLI::App* plan_command = app.add_subcommand("plan", "what quantizing would take of time, memory and disk");
  add_job_options(*plan_command, plan_options);
  add_run_options(*plan_command, plan_options);
  plan_command->get_option("OUT")->required(false);
  plan_command->add_flag("--presets", plan_options.presets, "what each preset would take, side by side");
  bool devices_json = false;
  CLI::App* devices_command = app.add_subcommand("devices", "what this machine has, with free memory");
  devices_command->add_flag("--json", devices_json, "as JSON on stdout");

  EvaluationOptions eval_options, compare_options;
  CLI::App* eval_command = app.add_subcommand("eval", "perplexity of a plain or a quantized folder");
  eval_command->add_option("MODEL", eval_options.evaluation.model, "model folder")->required();
  add_evaluation_options(*eval_command, eval_options);
  CLI::App* compare_command =
      app.add_subcommand("compare", "on each text: perplexity of both, KL divergence, share of equal top tokens");
  compare_command->add_option("MODEL", compare_options.evaluation.model, "unquantized model folder")->required();
  compare_command->add_option("QUANTIZED", compare_options.quantized, "quantized folder")->required();
  add_comparison_options(*compare_command, compare_options);

  std::string inspected, tokenized, text;
  bool inspect_json = false, inspect_verbose = false;
  CLI::App* inspect_command = app.add_subcommand("inspect", "what is in a folder, and which loaders accept it");
  inspect_command->add_option("MODEL", inspected, "model folder")->required();
  inspect_command->add_flag("--json", inspect_json, "everything as JSON on stdout");
  inspect_command->add_flag("--verbose", inspect_verbose, "list every module");
  CLI::App* tokenize_command = app.add_subcommand("tokenize", "token ids of a text, one JSON array a line");
  tokenize_command->add_option("MODEL", tokenized, "folder with tokenizer.json")->required();
  tokenize_command->add_option("--text", text, ".txt, .jsonl (text, messages or input_ids), - for stdin")->required();

  DemoOptions demo_options;
  bool demo_quiet = false;
  CLI::App* demo_command = app.add_subcommand("demo", "a small trained model: unquantized, rounded, GPTQ");
  demo_command->add_option("--folder", demo_options.folder,
                           "where the demo is, if neither installed nor in its source tree");
  demo_command->add_option("--keep", demo_options.keep, "keep the quantized models in this folder");
  demo_command->add_option("--threads", demo_options.threads, "0: all cores")->capture_default_str();
  demo_command->add_flag("--json", demo_options.json, "print the table as JSON on stdout, nothing else there");
  demo_command->add_flag("--quiet", demo_quiet, "no progress");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::fprintf(stderr, "gptq: %s (see gptq --help)\n", error.what());
    return 2;
  }

  Interrupt interrupt;
  try {
    if (*quantize_command) run_quantize(quantize_options, interrupt);
    if (*plan_command) run_plan(plan_options);
    if (*devices_command) run_devices(devices_json);
    if (*eval_command) run_eval(eval_options, interrupt.token());
    if (*compare_command) run_compare(compare_options, interrupt.token());
    if (*inspect_command) run_inspect(inspected, inspect_json, inspect_verbose);
    if (*tokenize_command) run_tokenize(tokenized, text);
    if (*demo_command) {
      Terminal terminal(demo_quiet ? Terminal::Verbosity::quiet : Terminal::Verbosity::normal);
      run_demo(demo_options, terminal, interrupt.token());
    }
    return 0;
  } catch (const Cancelled&) {
    std::fputs("gptq: interrupted\n", stderr);
    return 130;
  } catch (const InputError& error) {
    std::fprintf(stderr, "gptq: %s\n", error.what());
    return 2;
  } catch (const std::bad_alloc&) {
    std::fputs("gptq: out of memory: give the program more, or take fewer --samples\n", stderr);
    return 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gptq: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace gptq

int main(int argc, char** argv) {
#ifdef __GLIBC__
  // Freed blocks of a megabyte and more go back to the system at once, always: memory is what the plan says.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
  return gptq::run(argc, argv);
}
