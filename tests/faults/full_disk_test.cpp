// A disk that becomes full at each of the files of a run: the run says which, and the same job with --resume does the
// rest once there is room.
#include <csignal>

#include <sys/mount.h>
#include <sys/resource.h>

#include "faults/faults.h"

namespace gptq::testing_faults {
namespace {

class FullDisk : public Faults {
 protected:
  Kind kind(const std::vector<std::string>& more = {}) const {
    Kind kind{.name = "full disk",
              .arguments = {"--calibration", path() / "ids.jsonl", "--samples", "8", "--sequence-length", "32",
                            "--group-size", "16", "--scale-search", "minmax", "--max-shard-size", "15KB"}};
    kind.arguments.insert(kind.arguments.end(), more.begin(), more.end());
    return kind;
  }

  // A run whose calls of an operation at files of a name fail from the n-th on. Its end is as in `expected`.
  Attempt fill(const Kind& kind, const Fault& fault, const std::string& expected) {
    prepare(kind);
    Attempt full = run(command(kind, {"--resume"}), fault);
    EXPECT_FALSE(full.fired.empty()) << fault.operation << " " << fault.name;
    const Verdict verdict = judge(kind, full);
    EXPECT_EQ(verdict.wrong, "") << full.fired << ": " << full.err;
    EXPECT_EQ(verdict.ending, expected) << full.fired << ": " << full.err;
    if (full.code != 0) {
      EXPECT_EQ(fault_of_rest(kind), "") << full.fired;
    }
    return full;
  }
  static Fault full(const std::string& operation, const std::string& name, int64_t n = 1) {
    return {.operation = operation, .mode = "ENOSPC", .n = n, .to_the_end = true, .name = name};
  }
};

TEST_F(FullDisk, ShardsSayHowMuchIsMissing) {
  learn(kind());
  for (const auto& [operation, n] : std::vector<std::pair<std::string, int64_t>>{
           {"open", 1}, {"reserve", 1}, {"reserve", 2}, {"pwrite", 1}, {"pwrite", 20}, {"pwrite", 40}, {"fsync", 1}}) {
    const Attempt disturbed = fill(kind(), full(operation, "partial/model/model-0", n), "failed");
    EXPECT_EQ(disturbed.code, 2);
    for (const char* word : {"out.partial/model/model-0000", "No space left on device", "bytes are needed", " free"})
      EXPECT_NE(disturbed.err.find(word), std::string::npos) << word << " is not in " << disturbed.err;
  }
}

TEST_F(FullDisk, StatesAreNotSavedAnyMore) {
  const Kind states = kind({"--checkpoint-states"});
  learn(states);
  for (const char* operation : {"open", "pwrite"}) {
    const Attempt disturbed = fill(states, full(operation, "states-"), "new, remark");
    for (const char* word : {"warning: ", "out.partial/states-", "No space left on device", "states are not saved"})
      EXPECT_NE(disturbed.err.find(word), std::string::npos) << word << " is not in " << disturbed.err;
  }
}

TEST_F(FullDisk, TheJournalIsMissedOnlyByALaterRun) {
  learn(kind());
  const Attempt first = fill(kind(), full("pwrite", "out.partial/journal"), "failed");
  EXPECT_EQ(first.code, 2);
  EXPECT_NE(first.err.find("out.partial/journal"), std::string::npos) << first.err;
  const Attempt later = fill(kind(), full("pwrite", "out.partial/journal", 2), "new, remark");
  EXPECT_NE(later.err.find("the journal could not be written"), std::string::npos) << later.err;
}

TEST_F(FullDisk, AReportIsMissingBesideAWholeOutput) {
  const Kind report = kind({"--report", path() / "report.json"});
  learn(report);
  const Attempt disturbed = fill(report, full("write", "/#"), "failed, new");  // it has no name yet
  EXPECT_NE(disturbed.err.find("the quantized model is complete"), std::string::npos) << disturbed.err;
}

TEST_F(FullDisk, ALimitOfTheSizeOfFilesIsSaid) {
  learn(kind());
  prepare(kind());
  const Attempt limited = run(command(kind(), {"--resume"}), {}, [] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10'000, 10'000};
    setrlimit(RLIMIT_FSIZE, &limit);
  });
  EXPECT_EQ(limited.code, 2);
  EXPECT_NE(limited.err.find("File too large"), std::string::npos) << limited.err;
  EXPECT_EQ(judge(kind(), limited).wrong, "");
  EXPECT_EQ(fault_of_rest(kind()), "");
}

// A real disk: too small for the output, then for the states, then large enough.
TEST_F(FullDisk, ASmallDiskIsGrown) {
  const Kind states = kind({"--checkpoint-states"});
  learn(states);
  const fs::path disk = folder_ / "disk";
  fs::create_directory(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=32k") != 0) GTEST_SKIP() << "no right to mount a small disk";
  std::vector<std::string> arguments = command(states, {"--resume"});
  arguments[2] = disk / "out";
  const Attempt refused = run(arguments);
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("free"), std::string::npos) << refused.err;
  mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=72k");
  const Attempt tight = run(arguments);
  std::printf("a disk of 72 KiB: exit %d, %s\n", tight.code,
              tight.err.substr(tight.err.rfind("\n", tight.err.size() - 2) + 1).c_str());
  mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=1m");
  if (tight.code != 0) {
    const Attempt roomy = run(arguments);
    EXPECT_EQ(roomy.code, 0) << roomy.err;
  }
  EXPECT_EQ(contents(disk / "out"), new_);
  EXPECT_FALSE(fs::exists(disk / "out.partial"));
  umount(disk.c_str());
}

}  // namespace
}  // namespace gptq::testing_faults
