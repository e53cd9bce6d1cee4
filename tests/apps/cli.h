// Runs the program as a user does, in a folder with a tiny model.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tiny_model.h"

namespace gptq {

using namespace testing_model;  // NOLINT: helpers of the fixture

struct Outcome {
  int code = -1;
  std::string out, err;
};

// Runs the program; `before` runs in the child just before it.
inline pid_t start(const std::vector<std::string>& arguments, const fs::path& out, const fs::path& err,
                   const std::function<void()>& before = {}, const fs::path& input = "/dev/null") {
  const pid_t child = fork();
  if (child != 0) return child;
  dup2(open(input.c_str(), O_RDONLY), STDIN_FILENO);
  dup2(open(out.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600), STDOUT_FILENO);
  dup2(open(err.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600), STDERR_FILENO);
  if (before) before();
  std::vector<char*> argv{const_cast<char*>(GPTQ_CLI)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(GPTQ_CLI, argv.data());
  _exit(127);
}

inline int exit_code(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

class Cli : public testing::Test {
 protected:
  void SetUp() override {
    write_tiny_model(folder_ / "model");
    write_ids(folder_ / "ids.jsonl", 8, 32);
    for (const char* name : {"config.json", "generation_config.json", "LICENSE", "model.safetensors"}) {
      original_[name] = read_file(folder_ / "model" / name);
    }
  }

  Outcome run(const std::vector<std::string>& arguments, const std::function<void()>& before = {},
              const fs::path& input = "/dev/null") const {
    const pid_t child = start(arguments, folder_ / "stdout", folder_ / "stderr", before, input);
    const int code = exit_code(child);
    return {code, read_file(folder_ / "stdout"), read_file(folder_ / "stderr")};
  }

  // Arguments of a small run; `more` overrides them.
  std::vector<std::string> quantize(const std::vector<std::string>& more = {},
                                    const std::string& model = "model") const {
    std::vector<std::string> arguments = {"quantize", folder_ / model, folder_ / "out"};
    for (const auto& [flag, value] :
         std::vector<std::pair<std::string, std::string>>{{"--calibration", folder_ / "ids.jsonl"},
                                                          {"--samples", "8"},
                                                          {"--sequence-length", "32"},
                                                          {"--group-size", "32"},
                                                          {"--threads", "1"}}) {
      if (std::find(more.begin(), more.end(), flag) == more.end()) arguments.insert(arguments.end(), {flag, value});
    }
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  // Expects the failure for bad input: code 2, one sentence with `words` on stderr, no output, no temporary files.
  void expect_refusal(const Outcome& outcome, const std::vector<std::string>& words) const {
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    std::string sentence = outcome.err;
    for (size_t at = sentence.find("gptq: "); at != std::string::npos && at > 0; at = std::string::npos)
      sentence = sentence.substr(at);
    EXPECT_EQ(sentence.rfind("gptq: ", 0), 0U) << outcome.err;
    EXPECT_EQ(std::count(sentence.begin(), sentence.end(), '\n'), 1) << "one line: " << outcome.err;
    for (const std::string& word : words)
      EXPECT_NE(sentence.find(word), std::string::npos) << word << " is not in: " << sentence;
    expect_nothing_left();
  }

  void expect_nothing_left() const {
    EXPECT_FALSE(fs::exists(folder_ / "out"));
    for (const auto& entry : fs::directory_iterator(folder_.path())) {
      const std::string name = entry.path().filename();
      EXPECT_TRUE(name.find(".partial") == std::string::npos && name.find(".old") == std::string::npos) << name;
    }
  }

  void expect_source_untouched() const {
    for (const auto& [name, text] : original_) EXPECT_EQ(read_file(folder_ / "model" / name), text) << name;
  }

  // The model with one tensor changed, in the folder "changed".
  void write_changed(const std::function<void(TinyTensor&)>& change) const {
    std::vector<TinyTensor> tensors = tiny_tensors();
    for (TinyTensor& tensor : tensors) change(tensor);
    write_model(folder_ / "changed", tiny_config(), tensors);
  }

  void write_with_config(const std::function<void(Json&)>& change) const {
    Json config = tiny_config();
    change(config);
    write_model(folder_ / "changed", config, tiny_tensors());
  }

  TemporaryFolder folder_;
  std::map<std::string, std::string> original_;
};

}  // namespace gptq
