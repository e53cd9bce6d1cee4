// Signals, and limits of the operating system: a run ends in time, with a sentence, and leaves nothing.
#include <chrono>
#include <csignal>
#include <thread>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "apps/cli.h"

namespace gptq {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

class LimitsCli : public Cli {
 protected:
  // A run of some seconds that is under way.
  pid_t start_long(const std::function<void()>& before = {}) {
    if (!fs::exists(folder_ / "long")) {
      write_tiny_model(folder_ / "long",
                       {.hidden = 256, .intermediate = 512, .blocks = 24, .heads = 8, .head_dim = 32});
      write_ids(folder_ / "ids.jsonl", 64, 128);
    }
    fs::remove(folder_ / "stderr");  // of an earlier run
    const pid_t child = start(quantize({"--samples", "64", "--sequence-length", "128", "--json"}, "long"),
                              folder_ / "stdout", folder_ / "stderr", before);
    wait_for(folder_ / "stderr", "block 1/");
    return child;
  }
  static void wait_for(const fs::path& file, const std::string& words) {
    for (int i = 0; i < 3000 && read_file(file).find(words) == std::string::npos; ++i) usleep(10'000);
  }
  // The exit code, or -1 after it had to be killed.
  static int code_within(pid_t child, std::chrono::seconds time) {
    const auto end = std::chrono::steady_clock::now() + time;
    for (int status = 0; std::chrono::steady_clock::now() < end; usleep(20'000)) {
      if (waitpid(child, &status, WNOHANG) == child)
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    return -1;
  }
};

TEST_F(LimitsCli, SignalsThatEndARunLeaveNothing) {
  for (const auto& [signal_number, code] : {std::pair{SIGHUP, 129}, {SIGINT, 130}, {SIGTERM, 130}}) {
    const pid_t child = start_long();
    kill(child, signal_number);
    EXPECT_EQ(code_within(child, std::chrono::seconds(20)), code) << read_file(folder_ / "stderr");
    expect_nothing_left();
    EXPECT_EQ(Json::parse(read_file(folder_ / "stdout")).at("error").at("kind"), "cancelled");
  }
}

TEST_F(LimitsCli, AHangupThatIsIgnoredStaysSo) {
  const pid_t child = start_long([] { signal(SIGHUP, SIG_IGN); });
  kill(child, SIGHUP);
  usleep(300'000);
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0) << "it goes on";
  kill(child, SIGTERM);
  EXPECT_EQ(code_within(child, std::chrono::seconds(20)), 130);
}

TEST_F(LimitsCli, TheDemoRemovesItsFolderAtAnyEnd) {
  fs::create_directory(folder_ / "tmp");
  const auto in_tmp = [&] { setenv("TMPDIR", (folder_ / "tmp").c_str(), 1); };
  for (const auto& [signal_number, words] :
       {std::pair{SIGTERM, "A Llama"}, {SIGINT, "A Llama"}, {SIGHUP, "round to nearest, 4 bits"}}) {
    fs::remove(folder_ / "stderr");
    const pid_t child = start({"demo", "--threads", "1"}, folder_ / "stdout", folder_ / "stderr", in_tmp);
    wait_for(folder_ / "stderr", words);
    for (int i = 0; i < 500 && fs::is_empty(folder_ / "tmp"); ++i) usleep(10'000);
    EXPECT_FALSE(fs::is_empty(folder_ / "tmp"));
    kill(child, signal_number);
    EXPECT_NE(code_within(child, std::chrono::seconds(20)), -1);
    EXPECT_TRUE(fs::is_empty(folder_ / "tmp"));
  }
  const Outcome lost = run({"demo"}, [] { setenv("TMPDIR", "/nowhere", 1); });
  expect_refusal(lost, {"TMPDIR"});
}

TEST_F(LimitsCli, AFileSizeLimitIsAnErrorNotASignal) {
  const Outcome outcome = run(quantize(), [] {
    signal(SIGXFSZ, SIG_DFL);
    const rlimit limit{8192, 8192};
    setrlimit(RLIMIT_FSIZE, &limit);
  });
  expect_refusal(outcome, {"out", "bytes"});
}

TEST_F(LimitsCli, ManyShardsFitALimitOfOpenFilesThatCanBeRaised) {
  const auto limited = [](rlim_t soft, rlim_t hard) {
    return [soft, hard] {
      const rlimit limit{soft, hard};
      setrlimit(RLIMIT_NOFILE, &limit);
    };
  };
  ASSERT_EQ(run(quantize({"--max-shard-size", "1KB"}), limited(20, 1024)).code, 0);
  EXPECT_GT(contents(folder_ / "out").size(), 25U);
}

// OpenBLAS maps 128 MB of address space for each call at a time, and tries for ever where it gets none.
TEST_F(LimitsCli, AddressSpaceThatIsShortEndsInASentence) {
  if (kSanitized) GTEST_SKIP() << "sanitizers reserve more than the limit";
  const auto limit_to = [](int resource, rlim_t megabytes) {
    return [resource, megabytes] {
      const rlimit limit{megabytes * 1'000'000, megabytes * 1'000'000};
      setrlimit(static_cast<__rlimit_resource_t>(resource), &limit);
    };
  };
  const auto attempt = [&](std::vector<std::string> arguments, int resource, rlim_t megabytes) {
    SCOPED_TRACE(std::to_string(resource) + " " + std::to_string(megabytes) + " " + arguments[0]);
    fs::remove_all(folder_ / "out");
    const pid_t child = start(arguments, folder_ / "stdout", folder_ / "stderr", limit_to(resource, megabytes));
    const int code = code_within(child, std::chrono::seconds(60));
    const std::string told = read_file(folder_ / "stderr");
    EXPECT_TRUE(code >= 0 && code <= 2) << code << told;
    if (code != 0) {
      EXPECT_NE(told.find("gptq: "), std::string::npos) << code << told;
      expect_nothing_left();
    }
    return code;
  };
  std::vector<std::string> two_threads = quantize({"--threads", "2"});
  for (const rlim_t megabytes : {100, 150, 200, 250, 300, 400, 1000}) attempt(two_threads, RLIMIT_AS, megabytes);
  EXPECT_EQ(attempt(two_threads, RLIMIT_AS, 1000), 0);
  for (const rlim_t megabytes : {20, 40, 100, 150, 200, 300}) attempt(two_threads, RLIMIT_DATA, megabytes);
  EXPECT_EQ(attempt(two_threads, RLIMIT_DATA, 600), 0);
  const std::vector<std::string> tokenized{"tokenize", folder_ / "model", "--text", folder_ / "ids.jsonl"};
  EXPECT_EQ(attempt(tokenized, RLIMIT_AS, 150), 0);
  for (const rlim_t megabytes : {10, 20, 40}) attempt(tokenized, RLIMIT_DATA, megabytes);
}

TEST_F(LimitsCli, ThreadsThatCannotStartAreSaid) {
  if (kSanitized) GTEST_SKIP() << "sanitizers reserve more than the limit";
  const Outcome outcome = run(quantize({"--threads", "64"}), [] {
    const rlimit space{400'000'000, 400'000'000}, stack{64 << 20, RLIM_INFINITY};
    setrlimit(RLIMIT_STACK, &stack);
    setrlimit(RLIMIT_AS, &space);
  });
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_NE(outcome.err.find("cannot start a thread"), std::string::npos) << outcome.err;
  expect_nothing_left();
}

}  // namespace
}  // namespace gptq
