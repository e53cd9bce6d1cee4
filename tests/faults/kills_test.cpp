// Runs that are killed at every block boundary, and at random instants, and continued until they are done: the same
// bytes. GPTQ_FAULTS_FULL=1 kills more often.
#include <random>
#include <thread>

#include "faults/faults.h"

namespace gptq::testing_faults {
namespace {

class Kills : public Faults {
 protected:
  void SetUp() override {
    Faults::SetUp();
    if (IsSkipped()) return;
    write_tiny_model(path() / "model", {.blocks = 4});
    write_ids(path() / "ids.jsonl", 24, 48, 66);
  }

  Kind kind(const std::string& name) {
    Kind kind{.name = name,
              .arguments = {"--calibration", path() / "ids.jsonl", "--samples", "24", "--sequence-length", "48"}};
    const auto add = [&](const std::vector<std::string>& more) {
      kind.arguments.insert(kind.arguments.end(), more.begin(), more.end());
    };
    if (name == "experts") {
      fs::remove_all(path() / "model");
      fs::copy(fs::path(GPTQ_GOLDEN) / "families" / "mixtral", path() / "model");
      add({"--group-size", "-1"});
      return kind;
    }
    add({"--group-size", "32"});
    if (name == "best") add({"--preset", "best"});
    if (name == "mixed bits") add({"--average-bits", "3.5"});
    if (name == "saved states") add({"--checkpoint-states"});
    if (name == "spilled states") return spilled();
    return kind;
  }

  // Kills at each call of an operation on the journal, the first after each write of it, and continues.
  void kill_at_each_note(const Kind& kind) {
    for (const char* operation : {"pwrite", "fsync"}) {
      for (int64_t n = 1;; ++n) {
        prepare(kind);
        const Attempt killed =
            run(command(kind, {"--resume"}), Fault{.operation = operation, .mode = "kill", .n = n, .name = "journal"});
        if (killed.fired.empty()) break;
        ASSERT_EQ(killed.code, 128 + SIGKILL) << killed.err;
        EXPECT_TRUE(is_old());
        EXPECT_EQ(fault_of_rest(kind), "") << kind.name << ": " << killed.fired;
        ++boundaries_;
      }
    }
  }

  // Kills a run and what continues it `kills` times in all, at random instants.
  void kill_at_random(const Kind& kind, double seconds, int kills) {
    std::mt19937 random(21);
    std::uniform_real_distribution<double> instant(0.02, 1.05 * seconds);
    std::vector<double> lost;  // of each kill: the seconds of all runs beyond those of an undisturbed one
    for (int done = 0; done < kills;) {
      prepare(kind);
      double spent = 0;
      int times = 0;
      const int most = 1 + static_cast<int>(random() % 3);
      while (times < most && done < kills) {
        const auto started = std::chrono::steady_clock::now();
        const pid_t child = start(command(kind, {"--resume"}), folder_ / "stdout", folder_ / "stderr",
                                  [] { setenv("OPENBLAS_NUM_THREADS", "1", 1); });
        ASSERT_GT(child, 0) << "no process: a signal to -1 would reach all";
        std::this_thread::sleep_for(std::chrono::duration<double>(instant(random)));
        ::kill(child, SIGKILL);
        const int code = exit_code(child);
        spent += std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
        if (code == 0) break;
        ASSERT_EQ(code, 128 + SIGKILL) << read_file(folder_ / "stderr");
        ASSERT_TRUE(is_old() || is_new()) << kind.name;
        ++times, ++done;
        if (is_new()) break;  // killed while it cleared up, or after that
      }
      const auto started = std::chrono::steady_clock::now();
      if (times > 0) {
        ASSERT_EQ(fault_of_rest(kind), "") << kind.name;
      }
      EXPECT_TRUE(is_new());
      spent += std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
      for (int i = 0; i < times; ++i) lost.push_back((spent - seconds) / times);
    }
    std::sort(lost.begin(), lost.end());
    std::printf("%-16s %10d %12zu %14.0f %21.0f\n", kind.name.c_str(), boundaries_, lost.size(), seconds * 1e3,
                lost[lost.size() / 2] * 1e3);
  }

  void expect_the_same(const std::string& name) {
    const Kind kind = this->kind(name);
    learn(kind);
    ASSERT_FALSE(HasFailure());
    std::vector<double> seconds;
    for (int i = 0; i < 3; ++i) {
      prepare(kind);
      seconds.push_back(run(command(kind)).seconds);
    }
    std::sort(seconds.begin(), seconds.end());
    std::printf("%-16s %10s %12s %14s %21s\n", "kind", "boundaries", "random kills", "undisturbed ms",
                "ms lost per kill");
    kill_at_each_note(kind);
    if (!HasFailure()) kill_at_random(kind, seconds[1], walks_all() ? 34 : 4);
  }

  int boundaries_ = 0;
};

TEST_F(Kills, TheDefaultRecipe) { expect_the_same("default"); }
TEST_F(Kills, ThePresetBest) { expect_the_same("best"); }
TEST_F(Kills, ChosenBits) { expect_the_same("mixed bits"); }
TEST_F(Kills, SpilledStates) { expect_the_same("spilled states"); }
TEST_F(Kills, Experts) { expect_the_same("experts"); }
TEST_F(Kills, SavedStates) { expect_the_same("saved states"); }

}  // namespace
}  // namespace gptq::testing_faults
