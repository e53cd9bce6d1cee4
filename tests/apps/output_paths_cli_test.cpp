// Paths to write: none may replace what is read, and what was there stays until the new file is whole.
#include <csignal>

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "apps/cli.h"

namespace gptq {
namespace {

class OutputPathsCli : public Cli {
 protected:
  void SetUp() override {
    Cli::SetUp();
    write_file(folder_ / "recipe.json", R"({"bits": 8})");
    write_file(folder_ / "map.json", R"({"": "cpu"})");
  }
  std::vector<std::string> reporting(const std::string& path, std::vector<std::string> more = {}) const {
    more.insert(more.end(), {"--report", path});
    return quantize(more);
  }
  // The mode of new files is 0644.
  static void ordinary_mode() { umask(022); }
  mode_t mode_of(const char* name) const {
    struct stat status {};
    return stat((folder_ / name).c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
  }
};

TEST_F(OutputPathsCli, AReportDoesNotReplaceWhatIsRead) {
  const fs::path folder = folder_.path(), model = folder / "model";
  const auto snapshot = [&] { return std::pair(contents(model), contents(folder)); };
  fs::create_hard_link(folder / "ids.jsonl", folder / "hard.jsonl");
  fs::create_symlink(folder / "ids.jsonl", folder / "soft.jsonl");
  fs::create_hard_link(model / "config.json", folder / "hard.json");
  fs::create_symlink("model", folder / "link");
  fs::create_symlink("link/new.json", folder / "dangling.json");
  const std::vector<std::string> with_files{"--recipe", folder / "recipe.json", "--device-map", folder / "map.json"};
  for (const auto& [path, named] :
       std::vector<std::pair<std::string, std::string>>{{model / "model.safetensors", "model"},
                                                        {model / "config.json", "model"},
                                                        {model / "new.json", "model"},
                                                        {model / "below" / ".." / "new.json", "model"},
                                                        {folder / "link" / "report.json", "model"},
                                                        {folder / "hard.json", "config.json"},
                                                        {folder / "dangling.json", "model"},
                                                        {model, "model"},
                                                        {folder / "ids.jsonl", "ids.jsonl"},
                                                        {folder / "model" / ".." / "ids.jsonl", "ids.jsonl"},
                                                        {folder / "hard.jsonl", "ids.jsonl"},
                                                        {folder / "soft.jsonl", "ids.jsonl"},
                                                        {folder / "recipe.json", "recipe.json"},
                                                        {folder / "map.json", "map.json"},
                                                        {folder / "out", "out"},
                                                        {folder / "out" / "report.json", "out"}}) {
    SCOPED_TRACE(path);
    fs::remove(folder / "stdout");
    fs::remove(folder / "stderr");
    const auto before = snapshot();
    const Outcome outcome = run(reporting(path, with_files));
    expect_refusal(outcome, {"--report " + path, named});
    fs::remove(folder / "stdout");
    fs::remove(folder / "stderr");
    EXPECT_EQ(snapshot(), before);
  }
  expect_source_untouched();
}

TEST_F(OutputPathsCli, TheTextBesideTheModelIsReadToo) {
  fs::rename(folder_ / "ids.jsonl", folder_ / "calibration.txt");
  std::vector<std::string> arguments = reporting(folder_ / "calibration.txt");
  arguments.erase(arguments.begin() + 3, arguments.begin() + 5);
  expect_refusal(run(arguments), {"--report", "calibration.txt"});
}

TEST_F(OutputPathsCli, StdinIsNotReplacedEither) {
  std::vector<std::string> arguments = reporting(folder_ / "ids.jsonl");
  arguments[4] = "-";
  const std::string before = read_file(folder_ / "ids.jsonl");
  expect_refusal(run(arguments, {}, folder_ / "ids.jsonl"), {"--report"});
  EXPECT_EQ(read_file(folder_ / "ids.jsonl"), before);
}

TEST_F(OutputPathsCli, SpilledStatesStayOutOfTheModelAndTheOutput) {
  fs::create_directory(folder_ / "model" / "below");
  expect_refusal(run(quantize({"--spill-dir", folder_ / "model"})), {"--spill-dir", "model"});
  expect_refusal(run(quantize({"--spill-dir", folder_ / "model" / "below"})), {"--spill-dir", "model"});
  EXPECT_EQ(run(quantize({"--spill-dir", folder_.path()})).code, 0) << "around both is fine";
  const auto before = contents(folder_ / "out");
  EXPECT_EQ(run(quantize({"--overwrite", "--spill-dir", folder_ / "out"})).code, 2);
  EXPECT_EQ(contents(folder_ / "out"), before);
}

TEST_F(OutputPathsCli, PositionsDoNotReplaceWhatIsCompared) {
  ASSERT_EQ(run(quantize({"--quiet"})).code, 0);
  const auto before = contents(folder_ / "out");
  for (const char* path : {"out/model.safetensors", "out/new.csv", "model/config.json", "ids.jsonl"}) {
    const Outcome outcome = run({"compare", folder_ / "model", folder_ / "out", "--text", folder_ / "ids.jsonl",
                                 "--context", "32", "--positions", folder_ / path});
    EXPECT_EQ(outcome.code, 2) << path;
    EXPECT_NE(outcome.err.find("--positions"), std::string::npos) << outcome.err;
  }
  EXPECT_EQ(contents(folder_ / "out"), before);
  expect_source_untouched();
}

TEST_F(OutputPathsCli, TheDemoKeepsItsModelsElsewhere) {
  fs::create_directories(folder_ / "demo");
  fs::copy(fs::path(GPTQ_SOURCE) / "demo", folder_ / "demo", fs::copy_options::recursive);
  const auto before = contents(folder_ / "demo" / "model");
  expect_refusal(run({"demo", "--folder", folder_ / "demo", "--keep", folder_ / "demo" / "model" / "kept"}),
                 {"--keep", "model"});
  EXPECT_EQ(contents(folder_ / "demo" / "model"), before);
}

TEST_F(OutputPathsCli, AReportKeepsTheModeAndTheLinksOfTheOldOne) {
  ASSERT_EQ(run(reporting(folder_ / "new.json"), ordinary_mode).code, 0);
  EXPECT_EQ(mode_of("new.json"), 0644U);
  write_file(folder_ / "old.json", "old");
  chmod((folder_ / "old.json").c_str(), 0640);
  fs::create_symlink("old.json", folder_ / "link.json");
  ASSERT_EQ(run(reporting(folder_ / "link.json", {"--overwrite"}), ordinary_mode).code, 0);
  EXPECT_TRUE(fs::is_symlink(folder_ / "link.json"));
  EXPECT_TRUE(Json::accept(read_file(folder_ / "old.json")));
  EXPECT_EQ(mode_of("old.json"), 0640U);
  fs::create_symlink("made.json", folder_ / "dangling.json");
  ASSERT_EQ(run(reporting(folder_ / "dangling.json", {"--overwrite"})).code, 0);
  EXPECT_TRUE(Json::accept(read_file(folder_ / "made.json")));
  const std::string long_name = folder_ / (std::string(250, 'r') + ".json");
  EXPECT_EQ(run(reporting(long_name, {"--overwrite"})).code, 0);
  fs::remove_all(folder_ / "out");
  expect_nothing_left();
}

TEST_F(OutputPathsCli, AFullDiskLeavesTheOldReportAndAWholeModel) {
  // A report that is longer than any file of the model: files may have as many bytes as those, and no more.
  write_tiny_model(folder_ / "small",
                   {.hidden = 32, .intermediate = 32, .blocks = 12, .heads = 2, .kv_heads = 1, .head_dim = 16});
  std::vector<std::string> arguments =
      quantize({"--max-shard-size", "1KB", "--json", "--report", folder_ / "report.json"}, "small");
  ASSERT_EQ(run(arguments).code, 0);
  uintmax_t largest = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "out")) largest = std::max(largest, entry.file_size());
  ASSERT_GT(fs::file_size(folder_ / "report.json"), largest + 4096);
  fs::remove_all(folder_ / "out");
  write_file(folder_ / "report.json", "an older one");
  const Outcome outcome = run(arguments, [&] {
    signal(SIGXFSZ, SIG_DFL);
    const rlimit limit{largest + 1024, largest + 1024};
    setrlimit(RLIMIT_FSIZE, &limit);
  });
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  for (const char* word : {"--report", "report.json", "File too large", "the quantized model is complete"})
    EXPECT_NE(outcome.err.find(word), std::string::npos) << word << ": " << outcome.err;
  EXPECT_EQ(Json::parse(outcome.out).at("error").at("option"), "report");
  EXPECT_EQ(read_file(folder_ / "report.json"), "an older one");
  EXPECT_TRUE(fs::exists(folder_ / "out" / "config.json"));
  fs::remove_all(folder_ / "out");
  expect_nothing_left();
}

TEST_F(OutputPathsCli, PipesAndDevicesAreWrittenAsTheyAre) {
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const Outcome unread = run(reporting(pipe));
  expect_refusal(unread, {"--report", "pipe", "nobody reads"});

  const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  ASSERT_EQ(run(reporting(pipe)).code, 0);
  std::string report(1 << 20, '\0');
  report.resize(static_cast<size_t>(std::max<ssize_t>(0, read(reader, report.data(), report.size()))));
  close(reader);
  EXPECT_TRUE(Json::accept(report)) << report;
  EXPECT_TRUE(fs::is_fifo(pipe));

  for (const char* path : {"/dev/stdout", "/proc/self/fd/1"}) {
    const Outcome printed = run(reporting(path, {"--overwrite", "--quiet"}));
    ASSERT_EQ(printed.code, 0) << printed.err;
    EXPECT_EQ(Json::parse(printed.out).at("linears").size(), 14U);
  }
  EXPECT_EQ(run(reporting("/dev/null", {"--overwrite"})).code, 0);
  const Outcome full = run(reporting("/dev/full", {"--overwrite"}));
  EXPECT_EQ(full.code, 1);
  EXPECT_NE(full.err.find("the quantized model is complete"), std::string::npos) << full.err;
}

TEST_F(OutputPathsCli, PlacesThatTakeNoReportAreRefusedBeforeTheRun) {
  fs::create_directory(folder_ / "folder");
  for (const std::string& path : {(folder_ / "folder").string(), (folder_ / "new").string() + "/",
                                  (folder_ / "ids.jsonl" / "report.json").string(),
                                  (folder_ / "nowhere" / "report.json").string(), std::string(300, 'r')}) {
    SCOPED_TRACE(path);
    const Outcome outcome = run(reporting(path));
    expect_refusal(outcome, {"--report " + path, "cannot be written"});
    EXPECT_EQ(outcome.err.find("block 1/"), std::string::npos);
  }
}

}  // namespace
}  // namespace gptq
