// Every call of the system fails once: a run then ends with the right output, or says why not and leaves what was
// there; the same job with --resume does the rest. GPTQ_FAULTS_FULL=1 tries every call, else a few of each operation.
#include "faults/faults.h"

namespace gptq::testing_faults {
namespace {

struct Modes {
  std::string operation;
  std::vector<std::string> modes;
};
const std::vector<Modes>& all_modes() {
  static const std::vector<Modes> modes = {{"read", {"EIO", "EINTR", "short"}},
                                           {"pread", {"EIO", "EINTR", "short", "kill"}},
                                           {"write", {"EIO", "ENOSPC", "EINTR", "short", "kill"}},
                                           {"pwrite", {"EIO", "ENOSPC", "EINTR", "short", "kill"}},
                                           {"fsync", {"EIO", "ENOSPC", "EINTR", "kill"}},
                                           {"rename", {"EIO", "ENOSPC", "kill"}},
                                           {"renameat2", {"EIO", "ENOSPC", "EINVAL", "kill"}},
                                           {"mmap", {"ENOMEM"}},
                                           {"open", {"EMFILE", "EIO", "ENOSPC", "EINTR", "kill"}},
                                           {"mkdir", {"EIO", "ENOSPC", "kill"}},
                                           {"reserve", {"EIO", "ENOSPC", "EINTR", "EOPNOTSUPP", "kill"}},
                                           {"remove", {"EIO", "EACCES", "kill"}},
                                           {"close", {"EIO", "kill"}},
                                           {"malloc", {"ENOMEM"}}};
  return modes;
}

// The modes that end a run, of which each job has a few; all of them where every call is tried.
std::vector<Modes> ending_modes() {
  std::vector<Modes> modes = all_modes();
  for (Modes& row : modes) {
    std::erase_if(row.modes, [](const std::string& mode) {
      return !walks_all() && (mode == "EINTR" || mode == "short" || mode == "EMFILE" || mode == "EOPNOTSUPP");
    });
  }
  return modes;
}

class FaultsOfEachCall : public Faults {
 protected:
  // Which of `count` calls fail: `most` of them, others for each `row` of the table.
  static std::vector<int64_t> spread(int64_t count, int64_t most, int64_t row) {
    most = std::min(most, count);
    std::vector<int64_t> points;
    for (int64_t i = 0; i < most; ++i) points.push_back(1 + (i * count + row * 7 % count) / most);
    return points;
  }
  // Closer at the start, as most allocations are those of a speed that is measured.
  static std::vector<int64_t> spread_allocations(int64_t count, int64_t most) {
    std::vector<int64_t> points;
    for (int64_t i = 0; i < most; ++i) points.push_back(1 + i * i * (count - 1) / (most * most));
    return points;
  }

  // most: the points of an operation and a mode; allocations and the calls of large jobs are too many to walk them all.
  // name: of the calls that fail.
  void walk(const Kind& kind, int64_t most, int64_t most_allocations, const std::vector<Modes>& table = all_modes(),
            const std::string& name = {}) {
    const Attempt whole = learn(kind, name);
    ASSERT_FALSE(HasFailure());
    std::printf("%s (%.0f ms undisturbed)\n%-10s %-11s %7s %6s  endings\n", kind.name.c_str(), whole.seconds * 1e3,
                "operation", "mode", "calls", "points");
    int64_t number = 0;
    for (const auto& [operation, modes] : table) {
      const int64_t calls = whole.counts.at(operation);
      for (const std::string& mode : modes) {
        Row row;
        const bool allocates = operation == "malloc";
        for (const int64_t n : allocates
                                   ? spread_allocations(calls, walks_all() ? 40 * most_allocations : most_allocations)
                                   : spread(calls,
                                            !walks_all()   ? most
                                            : name.empty() ? calls
                                                           : 10 * most,
                                            ++number))
          disturb(kind, {.operation = operation, .mode = mode, .n = n, .name = name}, row);
        std::string endings;
        for (const auto& [ending, count] : row.endings)
          endings += (endings.empty() ? "" : "; ") + ending + " " + std::to_string(count);
        std::printf("%-10s %-11s %7ld %6d  %s\n", operation.c_str(), mode.c_str(), static_cast<long>(calls), row.points,
                    endings.c_str());
        std::fflush(stdout);
      }
    }
  }

  std::vector<std::string> small(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {
        "--calibration", path() / "ids.jsonl", "--samples", "4", "--group-size", "16", "--scale-search",
        "minmax",        "--sequence-length",  "16"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
};

// Notes of the journal sync the shards in the background: no shard is closed before the last one.
TEST_F(FaultsOfEachCall, SlowSyncsAreWaitedFor) {
  // The final check warns of random weights.
  const Kind kind{.name = "slow syncs", .arguments = small({"--max-shard-size", "15KB", "--no-final-check"})};
  learn(kind);
  prepare(kind);
  const Attempt slow = run(command(kind, {"--resume"}),
                           Fault{.operation = "fsync", .mode = "slow", .to_the_end = true, .name = "safetensors"});
  EXPECT_EQ(slow.code, 0);
  EXPECT_TRUE(is_new());
  EXPECT_EQ(slow.err.find("warning"), std::string::npos) << slow.err;
}

TEST_F(FaultsOfEachCall, ShardsWithAReport) {
  walk({.name = "shards, report, resume",
        .arguments = small({"--max-shard-size", "15KB", "--report", path() / "report.json"})},
       2, 12);
}

TEST_F(FaultsOfEachCall, AnOutputThatIsReplaced) {
  walk({.name = "overwrite", .arguments = small({}), .replaces = true, .resumes = false}, 1, 4, ending_modes());
}

TEST_F(FaultsOfEachCall, SpilledStates) {
  walk(spilled(), 1, 0,
       {{"open", {"EMFILE"}},
        {"reserve", {"ENOSPC", "EINTR"}},
        {"pread", {"EIO", "EINTR", "short"}},
        {"pwrite", {"EIO", "ENOSPC", "EINTR", "short", "kill"}}},
       path() / "spill");
}

TEST_F(FaultsOfEachCall, SavedStates) {
  walk({.name = "saved states, resume", .arguments = small({"--checkpoint-states"})}, 1, 4, ending_modes());
}

}  // namespace
}  // namespace gptq::testing_faults
