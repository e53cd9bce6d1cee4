// Packed words, compared with examples worked by hand: code i of a stream is at bit i * bits, low bits first.
#include "io/pack.h"

#include <random>

#include <gtest/gtest.h>

#include "ops/ops.h"

namespace gptq {
namespace {

ThreadPool pool(2);  // NOLINT

TEST(Pack, FourBitsPutTheFirstCodeLowest) {
  const std::vector<uint8_t> codes = {1, 2, 3, 4, 5, 6, 7, 8};
  const std::vector<uint32_t> words = {0x87654321U};
  EXPECT_EQ(pack_cols(codes, 1, 8, 4), words);
  EXPECT_EQ(unpack_cols(words, 1, 8, 4), codes);
  EXPECT_EQ(unpack_streams(words, 8, 1, 4, pool), codes);
}

TEST(Pack, TwoBitsPutSixteenCodesInAWord) {
  const std::vector<uint8_t> codes = {0, 1, 2, 3, 0, 1, 2, 3, 3, 3, 3, 3, 0, 0, 0, 2};
  // 0b11100100 twice, then 1111 1111, then 10 00 00 00
  const std::vector<uint32_t> words = {0x80FFE4E4U};
  EXPECT_EQ(pack_cols(codes, 1, 16, 2), words);
  EXPECT_EQ(unpack_streams(words, 16, 1, 2, pool), codes);
}

TEST(Pack, EightBitsPutFourCodesInAWord) {
  const std::vector<uint8_t> codes = {0x12, 0x34, 0x56, 0xFF};
  const std::vector<uint32_t> words = {0xFF563412U};
  EXPECT_EQ(pack_cols(codes, 1, 4, 8), words);
  EXPECT_EQ(unpack_streams(words, 4, 1, 8, pool), codes);
}

TEST(Pack, ThreeBitsStraddleWords) {
  // Code 10 starts at bit 30: its low two bits end word 0, its high bit starts word 1. Code 21 starts at bit 63: its
  // low bit ends word 1, its high two bits start word 2.
  std::vector<uint8_t> codes(32, 0);
  codes[0] = 5;
  codes[10] = 6;  // 0b110
  codes[21] = 3;  // 0b011
  codes[31] = 7;
  const std::vector<uint32_t> words = {5U | (2U << 30), 1U | (1U << 31), 1U | (7U << 29)};
  EXPECT_EQ(pack_cols(codes, 1, 32, 3), words);
  EXPECT_EQ(unpack_streams(words, 32, 1, 3, pool), codes);
}

TEST(Pack, UnpackingGivesTheCodesBackForEveryWidth) {
  std::mt19937 random(7);
  constexpr int64_t kRows = 64, kCols = 96;
  for (const int bits : {2, 3, 4, 8}) {
    Matrix codes(host_memory(), DType::u8, kRows, kCols), words(host_memory(), DType::i32, kCols * bits / 32, kRows);
    const std::span<uint8_t> all(codes.row<uint8_t>(0), codes.bytes());
    for (uint8_t& code : all) code = static_cast<uint8_t>(random() & ((1U << bits) - 1));
    const std::vector<uint8_t> expected(all.begin(), all.end());
    reference(ops::Pack{.codes = codes, .bits = bits, .words = words});
    const std::span<const uint32_t> down(words.row<uint32_t>(0), words.bytes() / 4);
    EXPECT_EQ(unpack_streams(down, kCols, kRows, bits, pool), expected) << bits;
    EXPECT_EQ(unpack_cols(pack_cols(expected, kRows, kCols, bits), kRows, kCols, bits), expected) << bits;
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
