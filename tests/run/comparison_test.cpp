// Two models on texts: the sums alone, then compared with the results of eval.
#include "run/comparison.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "base/error.h"
#include "tiny_model.h"

namespace gptq {
namespace {

using namespace testing_model;  // NOLINT: helpers of the fixture

TEST(ComparisonSums, AreTheMeansOfWhatWasAdded) {
  ComparisonSums sums;
  // Two windows of four and two tokens; the first one in two pieces.
  sums.add(1, std::vector<float>{1, 2}, std::vector<float>{2, 2}, std::vector<float>{0.5, 0.25},
           std::vector<float>{1, 0});
  sums.add(3, std::vector<float>{3}, std::vector<float>{5}, std::vector<float>{0.125}, std::vector<float>{1});
  sums.add(1, std::vector<float>{2}, std::vector<float>{3}, std::vector<float>{0}, std::vector<float>{1});
  const Comparison result = sums.result("a.txt", 2, 7);
  EXPECT_EQ(result.text, "a.txt");
  EXPECT_EQ(result.model.mean_nll, 2);
  EXPECT_EQ(result.quantized.mean_nll, 3);
  EXPECT_EQ(result.quantized.perplexity, std::exp(3.0));
  EXPECT_EQ(result.model.predicted_tokens, 4);
  EXPECT_EQ(result.model.windows, 2);
  EXPECT_EQ(result.model.seconds, 7);
  EXPECT_EQ(result.mean_kl, 0.875 / 4);
  EXPECT_EQ(result.max_kl, 0.5);
  EXPECT_EQ(result.same_top, 0.75);
  EXPECT_EQ(result.loss_change, 1);
  EXPECT_DOUBLE_EQ(result.loss_change_error, std::sqrt(0.5 / 4)) << "changes 1, 0, 2, 1 have the variance 1/2";
  ASSERT_EQ(result.positions.size(), 3U);
  EXPECT_EQ(result.positions[0].windows, 2);
  EXPECT_EQ(result.positions[0].model_nll, 1.5);
  EXPECT_EQ(result.positions[0].quantized_nll, 2.5);
  EXPECT_EQ(result.positions[0].kl, 0.25);
  EXPECT_EQ(result.positions[2].windows, 1);
  EXPECT_EQ(result.positions[2].model_nll, 3);
}

TEST(ComparisonSums, ThePercentileIsAValueThatNinetyNineInAHundredDoNotExceed) {
  ComparisonSums sums;
  for (int i = 200; i >= 1; --i) {  // KL 1 ... 200
    const std::vector<float> value{static_cast<float>(i)};
    sums.add(1, value, value, value, value);
  }
  EXPECT_EQ(sums.result("", 200, 0).kl_99, 198);
  EXPECT_EQ(sums.result("", 200, 0).max_kl, 200);
  const std::vector<float> nan{std::numeric_limits<float>::quiet_NaN()};
  sums.add(1, nan, nan, nan, nan);
  EXPECT_TRUE(std::isnan(sums.result("", 201, 0).kl_99)) << "a model that yields NaN is not hidden";
}

TEST(Disagreement, NamesTheTextsThatJudgeDifferently) {
  const auto of = [](std::vector<std::pair<double, double>> changes) {
    std::vector<Comparison> comparisons;
    for (const auto& [change, error] : changes) {
      comparisons.push_back({.text = std::string(1, static_cast<char>('a' + comparisons.size())) + ".txt",
                             .loss_change = change,
                             .loss_change_error = error});
    }
    return disagreement(comparisons);
  };
  EXPECT_EQ(of({}), "");
  EXPECT_EQ(of({{0.5, 0}}), "") << "one text has nothing to disagree with";
  EXPECT_EQ(of({{0.03, 0}, {0.05, 0}}), "") << "both clearly worse";
  EXPECT_EQ(of({{-0.01, 0}, {0.01, 0}}), "") << "neither clearly worse";
  EXPECT_EQ(of({{-0.01, 0.05}, {0.05, 0.05}}), "") << "within the error";
  const std::string text = of({{0.03, 0.001}, {0.05, 0.001}, {-0.01, 0.001}});
  EXPECT_NE(text.find("+5.13 % on b.txt"), std::string::npos) << text;
  EXPECT_NE(text.find("-1.00 % on c.txt"), std::string::npos) << text;
  EXPECT_EQ(text.find("a.txt"), std::string::npos) << text;
  EXPECT_NE(of({{0.3, 0.01}, {0.05, 0.01}}), "") << "six times as much";
}

class Compare : public testing::Test {
 protected:
  void SetUp() override {
    write_tiny_model(folder_ / "model");
    write_ids(folder_ / "a.jsonl", 12, 40);
    write_ids(folder_ / "b.jsonl", 5, 24, 128, 2);
    std::ofstream(folder_ / "b.jsonl", std::ios::app) << R"({"input_ids": [3, 1, 4, 1, 5, 9, 2, 6]})"
                                                      << "\n";
    Job job{.model = folder_ / "model", .output = folder_ / "quantized", .threads = 1};
    job.calibration = {.file = folder_ / "a.jsonl", .samples = 12, .sequence_length = 40};
    job.recipe.group_size = 32;
    job.recipe.bits = 3;
    quantize(job);
  }
  Evaluation evaluation(const std::string& model, std::vector<std::string> texts) const {
    return {.model = folder_ / model, .texts = std::move(texts), .context = 40, .threads = 1};
  }
  TemporaryFolder folder_;
};

TEST_F(Compare, FindsOnEachTextWhatEvalFinds) {
  const std::vector<std::string> texts{folder_ / "a.jsonl", folder_ / "b.jsonl"};
  const auto both = compare(evaluation("model", texts), folder_ / "quantized");
  const auto plain = perplexity(evaluation("model", texts)), quantized = perplexity(evaluation("quantized", texts));
  ASSERT_EQ(both.size(), 2U);
  ASSERT_EQ(plain.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(both[i].text, texts[i]);
    EXPECT_EQ(both[i].model.perplexity, plain[i].perplexity);
    EXPECT_EQ(both[i].quantized.perplexity, quantized[i].perplexity);
    EXPECT_EQ(both[i].model.windows, plain[i].windows);
    EXPECT_NEAR(std::exp(both[i].loss_change), quantized[i].perplexity / plain[i].perplexity, 1e-12);
    EXPECT_EQ(perplexity(evaluation("model", {texts[i]})).front().perplexity, plain[i].perplexity)
        << "a text counts the same together with another";
    EXPECT_LT(both[i].mean_kl, both[i].kl_99);
    EXPECT_LE(both[i].kl_99, both[i].max_kl);
  }
  EXPECT_NE(plain[0].perplexity, plain[1].perplexity);
}

TEST_F(Compare, PositionsAverageToTheTotals) {
  const auto both = compare(evaluation("model", {folder_ / "a.jsonl", folder_ / "b.jsonl"}), folder_ / "quantized");
  EXPECT_EQ(both[0].positions.size(), 39U);
  EXPECT_EQ(both[1].positions.size(), 23U);
  EXPECT_EQ(both[1].positions[6].windows, 6);
  EXPECT_EQ(both[1].positions[7].windows, 5) << "one line ends there";
  for (const Comparison& comparison : both) {
    double model = 0, quantized = 0, kl = 0;
    int64_t tokens = 0;
    for (const auto& position : comparison.positions) {
      const auto windows = static_cast<double>(position.windows);
      model += windows * position.model_nll;
      quantized += windows * position.quantized_nll;
      kl += windows * position.kl;
      tokens += position.windows;
    }
    ASSERT_EQ(tokens, comparison.model.predicted_tokens);
    EXPECT_NEAR(model / static_cast<double>(tokens), comparison.model.mean_nll, 1e-9);
    EXPECT_NEAR(quantized / static_cast<double>(tokens), comparison.quantized.mean_nll, 1e-9);
    EXPECT_NEAR(kl / static_cast<double>(tokens), comparison.mean_kl, 1e-9);
  }
}

TEST_F(Compare, PositionsAreThoseOfTheText) {
  // The same token everywhere except at one position: only there the loss differs from that of the text without the
  // exception.
  const auto losses = [&](int64_t changed) {
    std::vector<int> ids(32, 7);
    if (changed > 0) ids[changed] = 8;
    std::ofstream(folder_ / "one.jsonl") << Json{{"input_ids", ids}}.dump() << "\n";
    return compare(evaluation("model", {folder_ / "one.jsonl"}), folder_ / "quantized").front().positions;
  };
  const auto same = losses(0), changed = losses(20);
  for (size_t i = 0; i < 20; ++i) {
    const bool is_changed = i + 1 == 20;  // positions count from 1
    EXPECT_EQ(std::abs(same[i].model_nll - changed[i].model_nll) > 1e-3, is_changed) << "position " << i + 1;
  }
}

TEST_F(Compare, AModelIsLikeItself) {
  const auto itself = compare(evaluation("model", {folder_ / "a.jsonl", folder_ / "b.jsonl"}), folder_ / "model");
  for (const Comparison& comparison : itself) {
    EXPECT_EQ(comparison.mean_kl, 0);
    EXPECT_EQ(comparison.max_kl, 0);
    EXPECT_EQ(comparison.same_top, 1);
    EXPECT_EQ(comparison.loss_change, 0);
    EXPECT_EQ(comparison.loss_change_error, 0);
    for (const auto& position : comparison.positions) EXPECT_EQ(position.model_nll, position.quantized_nll);
  }
  EXPECT_EQ(disagreement(itself), "");
}

TEST_F(Compare, TextsThatCannotBeReadEndTheWorkBeforeItBegins) {
  bool began = false;
  const Listener told{.on_message = {}, .on_progress = [&](const Progress&) { began = true; }};
  const auto refusal = [&](std::vector<std::string> texts) -> std::string {
    try {
      compare(evaluation("model", std::move(texts)), folder_ / "quantized", told);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(refusal({folder_ / "a.jsonl", folder_ / "none.jsonl"}).find("none.jsonl"), std::string::npos);
  EXPECT_NE(refusal({"-", folder_ / "a.jsonl", "-"}).find("stdin"), std::string::npos);
  EXPECT_NE(refusal({}).find("`text`"), std::string::npos);
  EXPECT_FALSE(began);
}

}  // namespace
}  // namespace gptq
