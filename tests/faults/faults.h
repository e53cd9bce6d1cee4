// Runs of the program in which one call of the system fails (shim.cpp), and what must hold after each of them.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <unistd.h>

#include "apps/cli.h"

namespace gptq::testing_faults {

// Which call fails, and how.
struct Fault {
  std::string operation, mode;
  int64_t n = 1;
  bool to_the_end = false;  // the n-th and all after it
  std::string name = {};    // counts only paths with these characters
};

struct Attempt {
  int code = -1;
  std::string err;
  double seconds = 0;
  std::string fired;                      // the call that failed, with its path; empty if it was never reached
  std::map<std::string, int64_t> counts;  // calls of each operation, of a run that ended by itself
};

// A job whose undisturbed result is known.
struct Kind {
  std::string name;
  std::vector<std::string> arguments;  // without those of an output
  bool replaces = false;               // an older output, with --overwrite
  bool resumes = true;                 // in the disturbed run, too
};

inline bool walks_all() { return std::getenv("GPTQ_FAULTS_FULL") != nullptr; }

class Faults : public Cli {
 protected:
  static void SetUpTestSuite() {
    // Memory: a disk would spend the time on syncs, which only a power cut would miss.
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0);
  }
  void SetUp() override {
    if (std::string(GPTQ_SHIM).empty()) GTEST_SKIP() << "faults are not injected in builds with sanitizers";
    write_tiny_model(path() / "model", {.hidden = 32, .intermediate = 32, .heads = 2, .kv_heads = 1, .vocabulary = 64});
    write_ids(path() / "ids.jsonl", 8, 32, 64);
    fs::create_directory(path() / "spill");
  }

  const fs::path& path() const { return place_.path(); }
  fs::path out() const { return path() / "out"; }

  Attempt run(const std::vector<std::string>& arguments, const std::optional<Fault>& fault = {},
              const std::function<void()>& before = {}) const {
    const fs::path log = folder_ / "log";
    fs::remove(log);
    const auto started = std::chrono::steady_clock::now();
    const pid_t child = start(arguments, folder_ / "stdout", folder_ / "stderr", [&] {
      setenv("LD_PRELOAD", GPTQ_SHIM, 1);
      setenv("GPTQ_SHIM_FOLDER", path().c_str(), 1);
      setenv("GPTQ_SHIM_LOG", log.c_str(), 1);
      setenv("OPENBLAS_NUM_THREADS", "1", 1);
      if (fault) {
        setenv("GPTQ_SHIM_OPERATION", fault->operation.c_str(), 1);
        setenv("GPTQ_SHIM_MODE", fault->mode.c_str(), 1);
        setenv("GPTQ_SHIM_N", (std::to_string(fault->n) + (fault->to_the_end ? "+" : "")).c_str(), 1);
        if (!fault->name.empty()) setenv("GPTQ_SHIM_NAME", fault->name.c_str(), 1);
      }
      alarm(kSecondsOfAHang);
      if (before) before();
    });
    Attempt done{.code = exit_code(child)};
    done.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    done.err = read_file(folder_ / "stderr");
    std::istringstream lines(read_file(log));
    for (std::string word, operation, rest; lines >> word >> operation && std::getline(lines, rest);) {
      if (word == "count") done.counts[operation] = std::stoll(rest);
      if (word == "fired" && done.fired.empty()) done.fired = operation + rest;
    }
    return done;
  }

  std::vector<std::string> command(const Kind& kind, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"quantize", path() / "model", out(), "--threads", "1"};
    arguments.insert(arguments.end(), kind.arguments.begin(), kind.arguments.end());
    if (kind.replaces) arguments.emplace_back("--overwrite");
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  // A job whose states find no room in memory.
  Kind spilled() const {
    constexpr int64_t kSequences = 1000, kLength = 48;
    write_tiny_model(path() / "model");
    write_ids(path() / "ids.jsonl", kSequences, kLength);
    Kind kind{.name = "spilled states",
              .arguments = {"--calibration", path() / "ids.jsonl", "--samples", std::to_string(kSequences),
                            "--sequence-length", std::to_string(kLength), "--group-size", "32", "--spill-dir",
                            path() / "spill"}};
    kind.arguments.insert(kind.arguments.end(), {"--max-memory", short_memory(kind)});
    return kind;
  }

  // Memory in which the states find no room: the least that a run takes, and a little more.
  std::string short_memory(const Kind& kind) const {
    std::vector<std::string> arguments = command(kind, {"--max-memory", R"({"cpu": "1MB"})"});
    const std::string refusal = Cli::run(arguments).err;
    const size_t least = refusal.find('(', refusal.find("at least "));  // "at least 4.2 MB (4198400 bytes)"
    if (least == std::string::npos || refusal.find(" bytes)", least) == std::string::npos) throw Error(refusal);
    const std::string memory = Json{{"cpu", std::stoll(refusal.substr(least + 1)) + 3'000'000}}.dump();
    arguments = command(kind, {"--max-memory", memory, "--json"});
    arguments[0] = "plan";
    EXPECT_EQ(Json::parse(Cli::run(arguments).out).at("states"), "spill");
    return memory;
  }

  // What stands at OUT before a run, and nothing beside it.
  void prepare(const Kind& kind) const {
    fs::remove_all(out());
    fs::remove_all(path() / "out.partial");
    fs::remove(path() / "report.json");
    remove_partial_report();
    for (const auto& entry : fs::directory_iterator(path() / "spill")) fs::remove(entry.path());
    if (!kind.replaces) return;
    fs::create_directory(out());
    write_file(out() / "config.json", "{\"old\": true}");
    write_file(out() / "old.safetensors", "old weights");
  }

  // What a run leaves that is killed while it names a report, or cannot remove it: nothing else does.
  void remove_partial_report() const {
    std::vector<fs::path> left;
    for (const auto& entry : fs::directory_iterator(path())) {
      if (entry.path().filename().string().rfind("report.json.partial-", 0) == 0) left.push_back(entry.path());
    }
    for (const fs::path& file : left) fs::remove(file);
  }

  // The undisturbed run, whose result the others must have. name: of the calls that it counts.
  Attempt learn(const Kind& kind, const std::string& name = {}) {
    prepare(kind);
    model_ = contents(path() / "model");
    old_.clear();
    if (kind.replaces) old_ = contents(out());
    Attempt whole = run(command(kind, {"--resume"}), Fault{.name = name});
    EXPECT_EQ(whole.code, 0) << whole.err;
    if (whole.code == 0) new_ = contents(out());
    return whole;
  }

  bool is_new() const { return fs::exists(out()) && contents(out()) == new_; }
  bool is_old() const { return old_.empty() ? !fs::exists(out()) : fs::exists(out()) && contents(out()) == old_; }

  // What is wrong with the text about a failure, which ends with one sentence; empty: nothing.
  static std::string fault_of_message(const std::string& err) {
    int sentences = 0;
    bool is_last = false;
    std::istringstream lines(err);
    for (std::string line; std::getline(lines, line);) {
      is_last = line.rfind("gptq: ", 0) == 0;
      sentences += is_last ? 1 : 0;
    }
    for (const char* raw : {"std::", "filesystem error", "basic_", "terminate", "json.exception"}) {
      if (err.find(raw) != std::string::npos) return std::string("text of a library: ") + raw;
    }
    return sentences == 1 && is_last ? "" : "not one sentence at the end";
  }

  // What is wrong beside OUT; empty: nothing.
  std::string fault_beside(bool partial_may_stay) const {
    if (contents(path() / "model") != model_) return "the model was touched";
    if (!fs::is_empty(path() / "spill")) return "the spill folder is not empty";
    static const std::set<std::string> expected = {"model", "ids.jsonl", "spill", "out", "report.json"};
    for (const auto& entry : fs::directory_iterator(path())) {
      const std::string name = entry.path().filename();
      if (expected.count(name) == 0 && !(partial_may_stay && name == "out.partial")) return name + " was left";
    }
    return {};
  }

  // How a disturbed run has ended. `wrong`: what must not be; then `ending` is "wrong".
  struct Verdict {
    std::string ending, wrong;
  };
  Verdict judge(const Kind& kind, const Attempt& disturbed) const {
    const auto wrong = [](const std::string& what) { return Verdict{"wrong", what}; };
    const bool has_new = is_new(), killed = disturbed.code == 128 + SIGKILL;
    if (disturbed.code == 128 + SIGALRM) return wrong("hung");
    if (!has_new && !is_old()) return wrong("OUT is neither the old nor the new one");
    if (disturbed.code == 0 && !has_new) return wrong("exit 0 without the output");
    if (killed || disturbed.fired.rfind("remove ", 0) == 0) remove_partial_report();
    if (killed) return {has_new ? "killed, new" : "killed", fault_beside(true)};
    if (disturbed.code > 3) return wrong("died");
    const bool tells = disturbed.err.find("out.partial") != std::string::npos;
    // Without memory for a destructor the program ends at once.
    const bool at_once = disturbed.code == 1 && disturbed.fired.rfind("malloc ", 0) == 0;
    const bool partial_may_stay = disturbed.code == 0 ? tells : kind.resumes || has_new || at_once;
    if (const std::string beside = fault_beside(partial_may_stay); !beside.empty()) return wrong(beside);
    if (disturbed.code == 0)
      return {disturbed.fired.empty() ? "not reached" : tells ? "new, remark" : "new", fault_of_report(kind)};
    if (const std::string message = fault_of_message(disturbed.err); !message.empty()) return wrong(message);
    return {has_new ? "failed, new" : "failed", {}};
  }
  std::string fault_of_report(const Kind& kind) const {
    const bool wanted = std::count(kind.arguments.begin(), kind.arguments.end(), "--report") != 0;
    return !wanted || Json::accept(read_file(path() / "report.json")) ? "" : "the report is broken";
  }

  // Runs the rest of a job that has ended early. What is wrong with it; empty: nothing.
  std::string fault_of_rest(const Kind& kind) const {
    const bool was_new = is_new();
    std::vector<std::string> more = {"--resume"};
    if (was_new && !kind.replaces && !fs::exists(path() / "out.partial")) more.emplace_back("--skip-existing");
    const Attempt rest = run(command(kind, more));
    if (rest.code != 0) return "the rest fails: " + std::to_string(rest.code) + " " + rest.err;
    if (!is_new()) return "the rest has other bytes";
    if (const std::string beside = fault_beside(false); !beside.empty()) return "after the rest " + beside;
    return was_new && !kind.replaces ? "" : fault_of_report(kind);
  }

  // A row of the table.
  struct Row {
    std::map<std::string, int> endings;
    int points = 0;
  };
  // Disturbs a run, has the rest done, and counts the ending.
  void disturb(const Kind& kind, const Fault& fault, Row& row) const {
    prepare(kind);
    const Attempt disturbed = run(kind.resumes ? command(kind, {"--resume"}) : command(kind), fault);
    Verdict verdict = judge(kind, disturbed);
    if (verdict.wrong.empty() && disturbed.code != 0) verdict.wrong = fault_of_rest(kind);
    ++row.points;
    ++row.endings[verdict.wrong.empty() ? verdict.ending : "wrong"];
    EXPECT_EQ(verdict.wrong, "") << kind.name << ", " << fault.mode << " at " << disturbed.fired << ": exit "
                                 << disturbed.code << " " << disturbed.err;
  }

  static constexpr unsigned kSecondsOfAHang = 20;
  TemporaryFolder place_;  // of the job; what the tests need beside it is in Cli's
  std::map<std::string, std::string> model_, old_, new_;
};

}  // namespace gptq::testing_faults
