// stdin, stdout and stderr that are closed, full or read by nobody; what files may not do to a terminal; errors as
// JSON.
#include <csignal>
#include <thread>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "apps/cli.h"

namespace gptq {
namespace {

class StreamsCli : public Cli {
 protected:
  // Every command that prints its result on stdout.
  std::vector<std::vector<std::string>> printing_commands() const {
    const std::string model = folder_ / "model", ids = folder_ / "ids.jsonl";
    std::vector<std::string> planned = quantize();
    planned[0] = "plan";
    return {{"inspect", model},
            {"inspect", model, "--json", "--verbose"},
            {"tokenize", model, "--text", ids},
            {"eval", model, "--text", ids, "--context", "32", "--quiet"},
            {"compare", model, model, "--text", ids, "--context", "32", "--json"},
            planned,
            {"devices"},
            {"devices", "--json"},
            {"--help"},
            {"quantize", "--help"},
            {"--version"}};
  }
  static void expect_lost(const Outcome& outcome, const std::string& reason) {
    EXPECT_EQ(outcome.code, 1) << outcome.err;
    EXPECT_NE(outcome.err.find("gptq: cannot write to stdout (" + reason + ")"), std::string::npos) << outcome.err;
  }
};

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += word + " ";
  return text;
}

// Stdout of the program to be.
std::function<void()> with_stdout(const char* path) {
  return [path] { dup2(open(path, O_WRONLY), STDOUT_FILENO); };
}

// Nobody reads stdout, or stderr; SIGPIPE as a shell leaves it.
std::function<void()> with_broken_pipe(std::vector<int> descriptors) {
  return [descriptors] {
    int ends[2];
    if (pipe(ends) != 0) _exit(99);
    close(ends[0]);
    for (const int descriptor : descriptors) dup2(ends[1], descriptor);
    close(ends[1]);
    signal(SIGPIPE, SIG_DFL);
  };
}

TEST_F(StreamsCli, AModelIsWholeWhereStandardStreamsAreClosed) {
  ASSERT_EQ(run(quantize({"--quiet", "--max-shard-size", "20KB"})).code, 0);
  const auto expected = contents(folder_ / "out");
  ASSERT_GT(expected.size(), 6U) << "several shards";
  for (const std::vector<int>& closed :
       std::vector<std::vector<int>>{{0, 1, 2}, {0, 2}, {0, 1}, {1, 2}, {0}, {1}, {2}}) {
    const Outcome outcome = run(quantize({"--verbose", "--overwrite", "--max-shard-size", "20KB"}), [&] {
      for (const int descriptor : closed) close(descriptor);
    });
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(contents(folder_ / "out"), expected) << closed.size() << " closed, the first " << closed[0];
  }
}

TEST_F(StreamsCli, AResultThatIsLostIsAnError) {
  for (const std::vector<std::string>& command : printing_commands()) {
    SCOPED_TRACE(joined(command));
    expect_lost(run(command, with_stdout("/dev/full")), "No space left on device");
    expect_lost(run(command, [] { close(STDOUT_FILENO); }), "Bad file descriptor");
    expect_lost(run(command, with_broken_pipe({STDOUT_FILENO})), "Broken pipe");
    EXPECT_EQ(run(command).code, 0);
  }
}

TEST_F(StreamsCli, AResultThatIsCutIsAnError) {
  write_ids(folder_ / "many.jsonl", 400, 200);
  const Outcome outcome = run({"tokenize", folder_ / "model", "--text", folder_ / "many.jsonl"}, [] {
    const rlimit limit{8192, 8192};
    setrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, SIG_DFL);
  });
  expect_lost(outcome, "File too large");
}

TEST_F(StreamsCli, AReportThatIsLostLeavesTheModelWhole) {
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--json"}, {}}) {
    const Outcome outcome = run(quantize(more), with_stdout("/dev/full"));
    expect_lost(outcome, "No space left on device");
    EXPECT_NE(outcome.err.find("the quantized model is complete"), std::string::npos) << outcome.err;
    EXPECT_TRUE(fs::exists(folder_ / "out" / "config.json"));
    fs::remove_all(folder_ / "out");
  }
  expect_lost(run(quantize({"--json"}), [] { close(STDOUT_FILENO); }), "Bad file descriptor");
  expect_nothing_left();
}

TEST_F(StreamsCli, ProgressThatNobodyReadsEndsNoRun) {
  const Outcome outcome =
      run(quantize({"--verbose", "--report", folder_ / "report.json"}), with_broken_pipe({STDERR_FILENO}));
  EXPECT_EQ(outcome.code, 0);
  EXPECT_TRUE(fs::exists(folder_ / "out" / "config.json"));
  EXPECT_TRUE(fs::exists(folder_ / "report.json"));
  EXPECT_NE(outcome.out.find("bits per weight"), std::string::npos);
  EXPECT_EQ(run(quantize({"--verbose", "--overwrite"}), with_broken_pipe({STDERR_FILENO, STDOUT_FILENO})).code, 1);
  EXPECT_TRUE(fs::exists(folder_ / "out" / "config.json"));
}

TEST_F(StreamsCli, AnEmptyStdinIsNoCalibration) {
  std::vector<std::string> arguments = quantize();
  arguments[4] = "-";
  expect_refusal(run(arguments, [] { close(STDIN_FILENO); }), {"stdin"});
}

TEST_F(StreamsCli, ADeviceWithoutAnEndIsNoCalibration) {
  std::vector<std::string> arguments = quantize();
  arguments[4] = "/dev/zero";
  expect_refusal(run(arguments, [] {}), {"/dev/zero", "device"});
}

// Bytes that a terminal would obey, newlines apart.
void expect_harmless(const std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    EXPECT_FALSE((byte < 0x20 && byte != '\n') || byte == 0x7f) << int{byte} << " at " << i << " of " << text;
    const bool is_c1 = byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    EXPECT_FALSE(is_c1) << text;
    EXPECT_NE(byte, 0x9b) << text;
  }
}

TEST_F(StreamsCli, NamesFromFilesDoNotReachATerminalAsTheyAre) {
  const std::string evil =
      "\x1b[2J\x1b]0;owned\x07\r\b\x7f\xc2\x9b"
      "31m\nforged: line";
  write_with_config([&](Json& config) { config["model_type"] = evil; });
  for (const std::string command : {"inspect", "plan"}) {
    const Outcome outcome = run({command, folder_ / "changed", "--calibration", folder_ / "ids.jsonl"});
    expect_harmless(outcome.err + outcome.out);
  }
  const Outcome refused = run(quantize({}, "changed"));
  expect_harmless(refused.err);
  EXPECT_NE(refused.err.find("\\x1b[2J\\x1b]0;owned\\x07\\x0d\\x08\\x7f\\xc2\\x9b31m\\x0aforged"), std::string::npos)
      << refused.err;
  EXPECT_EQ(std::count(refused.err.begin(), refused.err.end(), '\n'), 1) << refused.err;

  fs::remove_all(folder_ / "changed");
  std::vector<TinyTensor> tensors = tiny_tensors();
  tensors.push_back(tensors.back());
  tensors.back().spec.name = "visual." + evil;
  write_model(folder_ / "changed", tiny_config(), tensors);
  write_file(folder_ / "changed" / "side\x1b[2J.txt", "x");
  const Outcome listed = run({"inspect", folder_ / "changed", "--verbose"});
  expect_harmless(listed.out + listed.err);
  const Outcome as_json = run({"inspect", folder_ / "changed", "--json"});
  expect_harmless(as_json.out);
  EXPECT_EQ(as_json.code, 0) << as_json.err;
  EXPECT_TRUE(Json::accept(as_json.out));
  const Outcome quantized = run(quantize({"--verbose"}, "changed"));
  EXPECT_EQ(quantized.code, 0) << quantized.err;
  expect_harmless(quantized.out + quantized.err);
}

TEST_F(StreamsCli, PathsOfTheUserAreShownAsTextToo) {
  const std::string evil = folder_ / "no\x1b[31m\xff\xfe";
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"inspect", evil},
                                             {"inspect", evil, "--json"},
                                             {"tokenize", folder_ / "model", "--text", evil},
                                             {"eval", folder_ / "model", "--text", evil, "--json"},
                                             quantize({"--device-map", "\x1b[2J\xff"}),
                                             quantize({"--report", evil + "/report.json", "--json"}),
                                             quantize({"--\x1b[2J", "--json"}),
                                             {"\x1b[2J"}}) {
    SCOPED_TRACE(joined(command));
    const Outcome outcome = run(command);
    EXPECT_EQ(outcome.code, 2) << outcome.err;
    expect_harmless(outcome.out + outcome.err);
    EXPECT_NE(outcome.err.find("gptq: "), std::string::npos) << outcome.err;
    if (command.back() == "--json") {
      EXPECT_TRUE(Json::accept(outcome.out)) << outcome.out;
    }
  }
  fs::rename(folder_ / "model", folder_ / "m\xff\x1b[2J");
  const std::string model = "m\xff\x1b[2J";
  const Outcome outcome = run(quantize({"--json", "--report", folder_ / "r.json"}, model));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(Json::accept(outcome.out));
  expect_harmless(outcome.out + outcome.err);
  EXPECT_EQ(run({"eval", folder_ / model, "--text", folder_ / "ids.jsonl", "--context", "32", "--json"}).code, 0);
  std::vector<std::string> planned = quantize({"--json"}, model);
  planned[0] = "plan";
  EXPECT_EQ(run(planned).code, 0);
}

TEST_F(StreamsCli, ErrorsAreJsonWhereJsonIsAskedFor) {
  const auto error_of = [&](const std::vector<std::string>& arguments, int code) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    const Json error = Json::parse(outcome.out).at("error");
    EXPECT_NE(outcome.err.find("gptq: " + error.at("message").get<std::string>() + "\n"), std::string::npos)
        << outcome.err << outcome.out;
    return error;
  };
  Json error = error_of(quantize({"--json"}, "missing"), 2);
  EXPECT_EQ(error.at("kind"), "input");
  EXPECT_EQ(error.at("file"), (folder_ / "missing").string());
  EXPECT_TRUE(error.at("option").is_null());
  EXPECT_FALSE(error.contains("tensor"));

  error = error_of(quantize({"--json", "--group-size", "48"}), 2);
  EXPECT_EQ(error.at("option"), "group_size");
  error = error_of(quantize({"--json", "--samples", "many"}), 2);
  EXPECT_EQ(error.at("option"), "samples");
  error = error_of(quantize({"--json", "--report", "/nowhere/r.json"}), 2);
  EXPECT_EQ(error.at("option"), "report");
  EXPECT_EQ(error.at("file"), "/nowhere/r.json");
  EXPECT_EQ(error_of(quantize({"--json", "--unknown"}), 2).at("kind"), "input");
  EXPECT_EQ(error_of({"eval", folder_ / "model", "--json"}, 2).at("kind"), "input");

  write_changed([](TinyTensor& tensor) {
    if (tensor.spec.name == "model.layers.1.mlp.gate_proj.weight") tensor.values[5] = std::nanf("");
  });
  EXPECT_EQ(error_of(quantize({"--json"}, "changed"), 2).at("tensor"), "model.layers.1.mlp.gate_proj.weight");
  fs::remove_all(folder_ / "changed");
  write_with_config([](Json& config) { config["model_type"] = "perceptron"; });
  EXPECT_EQ(error_of({"inspect", folder_ / "changed", "--json"}, 2).at("kind"), "unsupported");
  EXPECT_EQ(run({"inspect", folder_ / "changed"}).out, "") << "only where it is asked for";
}

}  // namespace
}  // namespace gptq
