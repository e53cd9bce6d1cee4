// Packed words against examples worked by hand from the format's rule: code i of a stream at bit i * bits, low bits
// first.
#include "quant/pack.h"

#include <random>

#include <gtest/gtest.h>

namespace gptq {
namespace {

TEST(Pack, FourBitsPutTheFirstCodeLowest) {
  const std::vector<uint8_t> codes = {1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(pack_rows(codes, 8, 1, 4), std::vector<uint32_t>{0x87654321U});
  EXPECT_EQ(pack_cols(codes, 1, 8, 4), std::vector<uint32_t>{0x87654321U});
}

TEST(Pack, TwoBitsPutSixteenCodesInAWord) {
  const std::vector<uint8_t> codes = {0, 1, 2, 3, 0, 1, 2, 3, 3, 3, 3, 3, 0, 0, 0, 2};
  // 0b11100100 twice, then 1111 1111, then 10 00 00 00
  EXPECT_EQ(pack_rows(codes, 16, 1, 2), std::vector<uint32_t>{0x80FFE4E4U});
}

TEST(Pack, EightBitsPutFourCodesInAWord) {
  EXPECT_EQ(pack_rows(std::vector<uint8_t>{0x12, 0x34, 0x56, 0xFF}, 4, 1, 8), std::vector<uint32_t>{0xFF563412U});
}

TEST(Pack, ThreeBitsStraddleWords) {
  // Code 10 starts at bit 30: its low two bits end word 0, its high bit starts word 1. Code 21 starts at bit 63: its
  // low bit ends word 1, its high two bits start word 2.
  std::vector<uint8_t> codes(32, 0);
  codes[0] = 5;
  codes[10] = 6;  // 0b110
  codes[21] = 3;  // 0b011
  codes[31] = 7;
  const std::vector<uint32_t> words = pack_rows(codes, 32, 1, 3);
  ASSERT_EQ(words.size(), 3U);
  EXPECT_EQ(words[0], 5U | (2U << 30));
  EXPECT_EQ(words[1], 1U | (1U << 31));
  EXPECT_EQ(words[2], 1U | (7U << 29));
}

TEST(Pack, StreamsRunDownTheColumnsOfSeveralColumns) {
  // Two columns of eight codes: column 0 counts up, column 1 is all ones.
  std::vector<uint8_t> codes;
  for (uint8_t r = 0; r < 8; ++r) {
    codes.push_back(r);
    codes.push_back(1);
  }
  EXPECT_EQ(pack_rows(codes, 8, 2, 4), (std::vector<uint32_t>{0x76543210U, 0x11111111U}));
}

TEST(Pack, UnpackingGivesTheCodesBackForEveryWidth) {
  std::mt19937 random(7);
  for (const int bits : {2, 3, 4, 8}) {
    std::vector<uint8_t> codes(96 * 64);
    for (uint8_t& code : codes) code = static_cast<uint8_t>(random() & ((1U << bits) - 1));
    EXPECT_EQ(unpack_rows(pack_rows(codes, 96, 64, bits), 96, 64, bits), codes) << bits;
    EXPECT_EQ(unpack_cols(pack_cols(codes, 96, 64, bits), 96, 64, bits), codes) << bits;
  }
}

TEST(Pack, TransposingTwiceChangesNothing) {
  std::vector<float> values(37 * 65);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const std::vector<float> once = transposed<float>(values, 37, 65);
  EXPECT_EQ(once[1], 65.0F);
  EXPECT_EQ(transposed<float>(once, 65, 37), values);
}

}  // namespace
}  // namespace gptq
