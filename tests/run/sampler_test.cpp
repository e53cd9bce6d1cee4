// Which token comes next, and how tokens become text.
#include "run/sampler.h"

#include <cmath>
#include <limits>
#include <map>

#include <gtest/gtest.h>

#include "base/error.h"
#include "data/tokenizer/unicode.h"
#include "run/text_stream.h"

namespace gptq {
namespace {

// Probabilities 1/7, 4/7, 2/7.
const std::vector<float> kLogits = {0, std::log(4.0F), std::log(2.0F)};

std::map<int32_t, int> counts(const Generation& generation, int draws, const std::vector<float>& logits = kLogits) {
  Sampler sampler(generation);
  std::map<int32_t, int> found;
  for (int i = 0; i < draws; ++i) ++found[sampler.choose(logits)];
  return found;
}

TEST(Sampler, TakesTheFirstOfTheMostLikelyAtTemperatureZero) {
  EXPECT_EQ(Sampler({.temperature = 0}).choose(kLogits), 1);
  EXPECT_EQ(Sampler({.temperature = 0}).choose(std::vector<float>{1, 3, 3, 2}), 1);
}

// 7000 draws: four standard deviations of the most frequent token are 166.
TEST(Sampler, DrawsInProportion) {
  const std::map<int32_t, int> found = counts({.temperature = 1, .seed = 3}, 7000);
  EXPECT_NEAR(found.at(0), 1000, 170);
  EXPECT_NEAR(found.at(1), 4000, 170);
  EXPECT_NEAR(found.at(2), 2000, 170);
  // At temperature 1/2 they are 1/21, 16/21, 4/21.
  const std::map<int32_t, int> colder = counts({.temperature = 0.5, .seed = 3}, 2100);
  EXPECT_NEAR(colder.at(1), 1600, 80);
}

TEST(Sampler, KeepsToTheMostLikely) {
  EXPECT_EQ(counts({.temperature = 1, .top_k = 1}, 50), (std::map<int32_t, int>{{1, 50}}));
  EXPECT_EQ(counts({.temperature = 1, .top_p = 0.5}, 50), (std::map<int32_t, int>{{1, 50}}));
  const std::map<int32_t, int> two = counts({.temperature = 1, .top_k = 2, .seed = 1}, 3000);
  EXPECT_EQ(two.size(), 2U);
  EXPECT_NEAR(two.at(1), 2000, 110);
  EXPECT_EQ(counts({.temperature = 1, .top_p = 0.6, .seed = 1}, 200).size(), 2U);
  EXPECT_EQ(counts({.temperature = 1, .top_k = 2, .top_p = 0.6}, 50).size(), 1U);  // of two: 2/3 and 1/3
  EXPECT_EQ(counts({.temperature = 1, .top_k = 100, .seed = 1}, 200).size(), 3U);
}

TEST(Sampler, ChoosesTheSameWithTheSameSeed) {
  const auto drawn = [](uint64_t seed) {
    Sampler sampler({.temperature = 1, .seed = seed});
    std::vector<int32_t> tokens;
    for (int i = 0; i < 40; ++i) tokens.push_back(sampler.choose(kLogits));
    return tokens;
  };
  EXPECT_EQ(drawn(5), drawn(5));
  EXPECT_NE(drawn(5), drawn(6));
}

TEST(Sampler, RefusesLogitsThatAreNoNumbers) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const double temperature : {0.0, 1.0})
      EXPECT_THROW(Sampler({.temperature = temperature}).choose(std::vector<float>{1, bad, 2}), Error);
  }
}

class Stream : public testing::Test {
 protected:
  // The pieces of a text's tokens behind a prompt.
  std::vector<std::string> pieces(const std::string& text, const std::vector<std::string>& stops = {}) {
    std::vector<std::string> found;
    const OnText on_text = [&](std::string_view piece) { found.emplace_back(piece); };
    const std::vector<int32_t> prompt = tokenizer_.encode("Once", false), tokens = tokenizer_.encode(text, false);
    TextStream stream(tokenizer_, prompt, stops, on_text);
    for (const int32_t token : tokens) {
      if (!stream.add(token)) break;
    }
    stream.finish();
    EXPECT_EQ(stream.text(), joined(found));
    return found;
  }
  static std::string joined(const std::vector<std::string>& parts) {
    std::string all;
    for (const std::string& part : parts) all += part;
    return all;
  }
  const Tokenizer tokenizer_{std::filesystem::path(GPTQ_SOURCE) / "demo" / "model"};
};

TEST_F(Stream, PassesOnWholeCharacters) {
  const std::string text = " upon a time, Zo\u00eb saw \u732b and \U0001F98A.";
  const std::vector<std::string> found = pieces(text);
  EXPECT_EQ(joined(found), text);
  EXPECT_GT(found.size(), 8U);
  for (const std::string& piece : found) EXPECT_EQ(invalid_utf8_offset(piece), -1) << piece;
}

TEST_F(Stream, EndsBeforeAStopText) {
  const std::string text = " upon a time, there was a fox. The end. More.";
  EXPECT_EQ(joined(pieces(text, {" end"})), " upon a time, there was a fox. The");
  EXPECT_EQ(joined(pieces(text, {"fox. The", "never"})), " upon a time, there was a ");
  EXPECT_EQ(joined(pieces(text, {"e w", "More"})), " upon a time, ther");
  EXPECT_EQ(joined(pieces(text, {"More. And"})), text) << "the start of a stop text alone is text";
}

}  // namespace
}  // namespace gptq
