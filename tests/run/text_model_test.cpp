// The next token of a sequence, with what the tokens before it have left, and without.
#include "run/text_model.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "golden_families.h"
#include "gptq/gptq.h"
#include "io/json.h"
#include "tiny_model.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;
using testing_model::family_names;
using testing_model::test_name;

constexpr int32_t kVocabulary = 66;

TokenSequence prompt_of(int64_t length, int64_t seed) {
  TokenSequence tokens;
  for (int64_t i = 0; i < length; ++i) tokens.push_back(static_cast<int32_t>((seed + i * i * 5 + i) % kVocabulary));
  return tokens;
}

int32_t most_likely(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - b[i]));
    size = std::max(size, std::abs(static_cast<double>(b[i])));
  }
  return largest / size;
}

// A sum has another order with a cache: some hundred roundings of fp32.
constexpr double kRoundings = 2e-4;

// A model that passes all tokens of every sequence.
class Plain {
 public:
  explicit Plain(const Generation& generation)
      : devices_(resources_, 1),
        opened_(generation.model, {.device_map = generation.device_map, .precision = "fp32"}, resources_, devices_,
                notices_) {}
  std::vector<float> next_logits(const TokenSequence& tokens) {
    const auto states = opened_.forward({{tokens}}, true);
    const Batch& batch = states->at(0, opened_.head());
    return to_host<float>(opened_.head(), opened_.model().output_head().logits(batch, batch.tokens() - 1, 1));
  }

 private:
  const Resources resources_ = find_resources("");
  Devices devices_;
  std::vector<Notice> notices_;
  OpenModel opened_;
};

class TextOfFamilies : public testing::TestWithParam<std::string> {
 protected:
  Generation generation() const {
    return {.model = fs::path(GPTQ_GOLDEN) / "families" / GetParam(), .precision = "fp32", .threads = 1};
  }
};

TEST_P(TextOfFamilies, IsTheSameWithEarlierTokensCached) {
  TextModel cached(generation(), {});
  Plain plain(generation());
  TokenSequence tokens = prompt_of(7, 3);
  const auto longest = static_cast<size_t>(std::min<int64_t>(24, cached.positions()));
  while (tokens.size() < longest) {
    const std::vector<float> found = cached.next_logits(tokens), wanted = plain.next_logits(tokens);
    ASSERT_LT(difference(found, wanted), kRoundings) << "after " << tokens.size() << " tokens";
    ASSERT_EQ(most_likely(found), most_likely(wanted)) << "after " << tokens.size() << " tokens";
    tokens.push_back(most_likely(found));
  }
}

// As a chat does whose template changes earlier turns.
TEST_P(TextOfFamilies, MayGoBackAndPassSeveralTokensAtOnce) {
  TextModel cached(generation(), {});
  Plain plain(generation());
  TokenSequence tokens = prompt_of(11, 5);
  cached.next_logits(tokens);
  tokens.resize(6);
  for (const int32_t other : {9, 8, 7, 6}) tokens.push_back(other);
  EXPECT_LT(difference(cached.next_logits(tokens), plain.next_logits(tokens)), kRoundings);
  const bool ropes_stay = cached.computed() == 4;
  EXPECT_TRUE(ropes_stay || cached.computed() == 10) << cached.computed();
  EXPECT_LT(difference(cached.next_logits(tokens), plain.next_logits(tokens)), kRoundings);
  EXPECT_EQ(cached.computed(), 1);
}

// The weights of a quantized folder stay codes.
TEST_P(TextOfFamilies, OfAQuantizedFolderIsThatOfItsUnpackedWeights) {
  const testing_model::TemporaryFolder folder;
  Job job{.model = generation().model, .output = folder / "out", .threads = 1, .final_check = false};
  job.recipe.method = Method::rtn;
  job.recipe.group_size = -1;
  quantize(job);
  Generation quantized = generation();
  quantized.model = folder / "out";
  TextModel packed(quantized, {});
  Plain unpacked(quantized);
  TokenSequence tokens = prompt_of(9, 3);
  for (int i = 0; i < 3; ++i) {
    const std::vector<float> found = packed.next_logits(tokens), wanted = unpacked.next_logits(tokens);
    ASSERT_LT(difference(found, wanted), kRoundings) << "after " << tokens.size() << " tokens";
    tokens.push_back(most_likely(wanted));
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, TextOfFamilies, testing::ValuesIn(family_names()), test_name);

// Made by tests/golden/texts/make.py.
TEST(TextModel, WritesTheGreedyTextsOfTransformers) {
  const fs::path golden = GPTQ_GOLDEN;
  const Json file = read_json(golden / "texts" / "texts.json");
  EXPECT_GE(file.at("texts").size(), 10U);
  for (const auto& [family, texts] : file.at("texts").items()) {
    SCOPED_TRACE(family);
    TextModel model({.model = golden / "families" / family, .precision = "fp32", .threads = 1}, {});
    for (size_t i = 0; i < texts.size(); ++i) {
      TokenSequence tokens = file.at("prompts").at(i).get<TokenSequence>();
      const size_t prompt = tokens.size();
      while (tokens.size() < prompt + texts[i].size()) tokens.push_back(most_likely(model.next_logits(tokens)));
      EXPECT_EQ(TokenSequence(tokens.begin() + static_cast<std::ptrdiff_t>(prompt), tokens.end()),
                texts[i].get<TokenSequence>());
    }
  }
}

// Each width, groups that are shuffled, zeros of their own, signed scales, and a quantized head.
TEST(TextModel, MultipliesCodesOfEveryRecipe) {
  const testing_model::TemporaryFolder folder;
  testing_model::write_tiny_model(folder / "model");
  testing_model::write_ids(folder / "ids.jsonl", 8, 32);
  const auto job_with = [&](int bits) {
    Job job{.model = folder / "model", .output = folder / "out", .threads = 1, .overwrite = true, .final_check = false};
    job.calibration = {.file = folder / "ids.jsonl", .samples = 8, .sequence_length = 32};
    job.recipe.bits = bits;
    job.recipe.group_size = 32;
    return job;
  };
  const auto expect_same_text = [&](const Job& job) {
    quantize(job);
    const Generation generation{.model = job.output, .precision = "fp32", .threads = 2};
    TextModel packed(generation, {});
    Plain unpacked(generation);
    for (const int64_t length : {9, 10}) {  // many rows, then one
      const TokenSequence tokens = prompt_of(length, 2);
      EXPECT_LT(difference(packed.next_logits(tokens), unpacked.next_logits(tokens)), kRoundings) << job.recipe.bits;
    }
  };
  for (const int bits : {2, 3, 4, 8}) {
    expect_same_text(job_with(bits));
    Job shuffled = job_with(bits);
    set_option(shuffled, "desc_act", true);
    shuffled.recipe.sym = false;
    shuffled.recipe.lm_head = true;
    if (bits == 2) shuffled.recipe.refine = "none";
    expect_same_text(shuffled);
  }
}

}  // namespace
}  // namespace gptq
