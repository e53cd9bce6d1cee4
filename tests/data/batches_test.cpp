#include "data/batches.h"

#include <gtest/gtest.h>

namespace gptq {
namespace {

TEST(Batches, HoldSequencesOfOneLength) {
  const std::vector<TokenSequence> sequences = {TokenSequence(4), TokenSequence(4), TokenSequence(4), TokenSequence(7),
                                                TokenSequence(4)};
  const auto batches = make_batches(sequences, 2, 2048);
  ASSERT_EQ(batches.size(), 4U);
  EXPECT_EQ(batches[0].size(), 2U);
  EXPECT_EQ(batches[1].size(), 1U);
  EXPECT_EQ(batches[2][0].size(), 7U);
  EXPECT_EQ(make_batches(std::vector<TokenSequence>(9, TokenSequence(512)), 0, 2048).size(), 3U)
      << "about 2048 tokens a batch";
}

}  // namespace
}  // namespace gptq
