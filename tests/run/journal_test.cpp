// The journal of an unfinished run: what a later run takes from it, and what it leaves.
#include "run/journal.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "io/digest.h"

namespace gptq {
namespace {

const Json kFingerprint = {{"version", "1"}};
const char* const kRun = R"({"run":{"version":"1"}})";
const char* const kPart = R"({"part":0,"dropped_rows":2,"tensors":{"a.qweight":5},"linears":[]})";

class JournalLines : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // A journal of these lines, with right checksums.
  Journal read(const std::vector<std::string>& lines) {
    std::ofstream file(folder_ / "journal", std::ios::binary);
    for (const std::string& line : lines) file << hex_digest(line) << " " << line << "\n";
    file.close();
    return Journal(folder_ / "journal", kFingerprint);
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / ("journal-" + std::to_string(getpid()));
};

TEST_F(JournalLines, AreReadInOrder) {
  const Journal journal = read({kRun, R"({"measured":[]})", kPart, R"({"states":1,"file":"states-1","digest":7})"});
  ASSERT_EQ(journal.parts().size(), 1U);
  EXPECT_EQ(journal.parts()[0].dropped_rows, 2);
  ASSERT_TRUE(journal.measured());
  ASSERT_TRUE(journal.states());
  EXPECT_EQ(journal.states()->file, "states-1");
}

TEST_F(JournalLines, OfAnotherFormDoNotCountThoughTheirChecksumsAreRight) {
  const std::string deep(100000, '[');
  for (const std::string& line : {std::string("5"), std::string("{"), deep, std::string(R"({"part":"x"})"),
                                  std::string(R"({"part":1e300,"dropped_rows":0,"tensors":{},"linears":[]})"),
                                  std::string(R"({"part":0,"dropped_rows":0,"tensors":{"a":1.5},"linears":[]})"),
                                  std::string(R"({"part":0,"dropped_rows":0,"tensors":[1],"linears":[]})"),
                                  std::string(R"({"part":0,"dropped_rows":0,"tensors":{},"linears":[{}]})"),
                                  std::string(R"({"states":-1,"file":"states-1","digest":7})"),
                                  std::string(R"({"states":0,"file":"../states","digest":7})"),
                                  std::string(R"({"measured":[{"linears":["a"],"weights":5,"candidates":[]}]})")}) {
    SCOPED_TRACE(line.substr(0, 80));
    const Journal journal = read({kRun, line, kPart});
    EXPECT_TRUE(journal.parts().empty());
    EXPECT_FALSE(journal.states());
    EXPECT_FALSE(journal.measured());
    EXPECT_TRUE(read({line, kPart}).parts().empty());  // instead of the run
  }
}

TEST_F(JournalLines, OfAnotherRunAreRefused) { EXPECT_THROW(read({R"({"run":{"version":"0"}})"}), InputError); }

}  // namespace
}  // namespace gptq
