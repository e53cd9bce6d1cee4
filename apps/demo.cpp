// gptq demo: what GPTQ buys over rounding, on a small trained model that comes with the program.
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sstream>
#include <system_error>
#include <vector>

#include <nlohmann/json.hpp>
#include <stdlib.h>

#include "commands.h"
#include "inputs.h"
#include "printing.h"
#include "terminal.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;

const std::string kBeginning = "Once upon a time, there was a little fox who", kPrompt = "<|endoftext|>" + kBeginning;

struct Row {
  std::string method;
  int bits = 16;
  double perplexity = 0, seconds = 0;
  int64_t bytes = 0;
  std::string folder;
};

fs::path find_demo(const std::string& given) {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  const std::vector<fs::path> places = given.empty()
                                           ? std::vector<fs::path>{program / GPTQ_INSTALLED_DEMO, GPTQ_SOURCE_DEMO}
                                           : std::vector<fs::path>{given};
  for (const fs::path& place : places) {
    if (fs::exists(place / "model" / "config.json")) return fs::weakly_canonical(place);
  }
  throw InputError(places.front().lexically_normal().string() +
                   ": the demo model is not there; name its folder with --folder");
}

// A folder for the quantized models, removed at the end, however that comes, unless the user wants to keep them.
class WorkFolder {
 public:
  WorkFolder(const std::string& keep, Interrupt& interrupt) : keep_(!keep.empty()), path_(keep) {
    if (keep_) return;
    std::error_code error;
    const fs::path folder = fs::temp_directory_path(error);
    if (error) throw InputError("the folder for temporary files cannot be used (" + error.message() + "): set TMPDIR");
    std::string name = folder / "gptq-demo-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) {
      throw InputError(folder.string() + ": cannot create a folder in it (" + std::strerror(errno) +
                           "); TMPDIR or --keep names another",
                       {.option = {}, .file = folder, .tensor = {}});
    }
    path_ = name;
    interrupt.remove_folder_on_exit(name);
  }
  ~WorkFolder() {
    std::error_code ignored;
    if (!keep_) fs::remove_all(path_, ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  bool keep_;
  fs::path path_;
};

std::string name_of(const Row& row) {
  if (row.method == "fp") return "unquantized (bf16)";
  return (row.method == "rtn" ? "round to nearest, " : "GPTQ, ") + std::to_string(row.bits) + " bits";
}

void print_as_json(const std::vector<Row>& rows) {
  nlohmann::ordered_json json = {{"rows", nlohmann::ordered_json::array()}};
  for (const Row& row : rows) {
    json["rows"].push_back({{"method", row.method},
                            {"bits", row.bits},
                            {"perplexity", row.perplexity},
                            {"seconds", row.seconds},
                            {"bytes", row.bytes}});
  }
  print_json(text_of(json));
}

void print_table(const std::vector<Row>& rows) {
  print("\n%-26s %12s %12s %10s %10s\n", "", "perplexity", "over fp", "seconds", "weights");
  for (const Row& row : rows) {
    print("%-26s %12.3f %+11.1f%% %10.1f %10s\n", name_of(row), row.perplexity,
          100 * (row.perplexity / rows[0].perplexity - 1), row.seconds, format_bytes(static_cast<double>(row.bytes)));
  }
}

void print_lines(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) print("  %s\n", line);
}

void refuse_to_replace_inputs(const std::string& keep, const fs::path& demo) {
  Inputs inputs;
  inputs.add_folder("the model", demo / "model");
  inputs.refuse_folder("keep", keep);
}

}  // namespace

void run_demo(const DemoOptions& options, Interrupt& interrupt) {
  const std::stop_token stop = interrupt.token();
  Terminal terminal(options.quiet ? Terminal::Verbosity::quiet : Terminal::Verbosity::normal);
  const fs::path demo = find_demo(options.folder);
  const std::string model = demo / "model";
  refuse_to_replace_inputs(options.keep, demo);
  const WorkFolder work(options.keep, interrupt);
  const Listener listener = terminal.listener(false);
  const auto measure = [&](const std::string& folder) {
    return perplexity({.model = folder,
                       .texts = {demo / "heldout.txt"},
                       .context = 256,
                       .threads = options.threads,
                       .stop = stop},
                      listener)
        .front();
  };

  std::vector<Row> rows;
  terminal.line("A Llama of 3.3 million parameters that writes short stories; perplexity on text it has not seen.");
  rows.push_back(
      {.method = "fp", .perplexity = measure(model).perplexity, .bytes = inspect(model).bytes, .folder = model});
  for (const int bits : {4, 3}) {
    for (const Method method : {Method::rtn, Method::gptq}) {
      Row row{.method = method == Method::rtn ? "rtn" : "gptq", .bits = bits};
      row.folder = work.path() / (row.method + "-" + std::to_string(bits) + "bit");
      terminal.line(name_of(row) + " ...");
      Job job{.model = model, .output = row.folder, .threads = options.threads, .overwrite = true, .stop = stop};
      job.calibration = {.file = demo / "calibration.txt", .samples = 128, .sequence_length = 256};
      job.recipe.method = method;
      job.recipe.bits = bits;
      interrupt.remove_on_exit(job.output);
      const Report report = quantize(job, listener);
      row.seconds = report.seconds;
      row.bytes = report.output_bytes;
      row.perplexity = measure(row.folder).perplexity;
      rows.push_back(row);
    }
  }
  terminal.end_bar();
  if (options.json) {
    print_as_json(rows);
    return;
  }
  print_table(rows);
  print("\nWhat each of them writes (most likely words):\n");
  for (const Row& row : rows) {
    const std::string text =
        generate({.model = row.folder, .tokens = 40, .threads = options.threads, .stop = stop}, kPrompt).text;
    print("\n%s\n", name_of(row));
    print_lines(kBeginning + text);
  }
  print("\nNext: gptq quantize MODEL OUT, with a model folder of your own, and gptq generate OUT --prompt TEXT.\n");
}

}  // namespace gptq
