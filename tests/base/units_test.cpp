// Sizes and names as people write them.
#include <gtest/gtest.h>

#include "base/edit_distance.h"
#include "base/error.h"
#include "gptq/gptq.h"

namespace gptq {
namespace {

TEST(Units, SizesAreReadWithDecimalAndBinaryUnits) {
  EXPECT_EQ(parse_bytes("123"), 123);
  EXPECT_EQ(parse_bytes("5GB"), 5'000'000'000);
  EXPECT_EQ(parse_bytes("1.5 kB"), 1500);
  EXPECT_EQ(parse_bytes("2GiB"), int64_t{2} << 30);
  EXPECT_EQ(parse_bytes("800mib"), int64_t{800} << 20);
}

TEST(Units, WhatIsNoSizeIsRefused) {
  for (const char* text : {"", "GB", "5XB", "-5GB", "0", "nan", "inf", "1e30TB", "5GB5"})
    EXPECT_THROW(parse_bytes(text), InputError) << text;
}

TEST(Units, SizesAreWrittenInPowersOfAThousand) {
  EXPECT_EQ(format_bytes(12), "12 B");
  EXPECT_EQ(format_bytes(1234), "1.23 kB");
  EXPECT_EQ(format_bytes(739e6), "739 MB");
  EXPECT_EQ(format_bytes(16.06e9), "16.1 GB");
}

TEST(Names, TheEditDistanceCountsSingleChanges) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("layer", "layers"), 1);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("abc", ""), 3);
}

}  // namespace
}  // namespace gptq
