// The next token of a sequence, with what the tokens before it have left, and without.
#include "run/text_model.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "golden_families.h"
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
        opened_(generation.model, {.device_map = generation.device, .precision = "fp32"}, resources_, devices_,
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

INSTANTIATE_TEST_SUITE_P(Golden, TextOfFamilies, testing::ValuesIn(family_names()), test_name);

}  // namespace
}  // namespace gptq
