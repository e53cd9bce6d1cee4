// JSON from files: numbers that are checked, and texts that are not UTF-8.
#include <gtest/gtest.h>

#include "base/error.h"
#include "io/json_numbers.h"

namespace gptq {
namespace {

TEST(JsonNumbers, WholeNumbersAreTakenWhereTheyFit) {
  EXPECT_EQ(whole_number<int>(Json::parse("4")), 4);
  EXPECT_EQ(whole_number<int>(Json::parse("-1")), -1);
  EXPECT_EQ(whole_number<int>(Json::parse("4.0")), 4);
  EXPECT_EQ(whole_number<int>(Json(int64_t{7})), 7);
  EXPECT_EQ(whole_number<uint64_t>(Json(int64_t{7})), 7U);
  EXPECT_EQ(whole_number<int64_t>(Json::parse("9223372036854775807")), INT64_MAX);
  EXPECT_EQ(whole_number<int64_t>(Json::parse("-9223372036854775808")), INT64_MIN);
  EXPECT_EQ(whole_number<uint64_t>(Json::parse("18446744073709551615")), UINT64_MAX);
}

TEST(JsonNumbers, OthersAreRefused) {
  for (const char* text :
       {"4.5", "1e300", "-1e300", "2147483648", "-2147483649", "18446744073709551615", "true", "null", "\"4\"", "[4]"})
    EXPECT_THROW(whole_number<int>(Json::parse(text)), Json::exception) << text;
  EXPECT_THROW(whole_number<int>(Json(int64_t{1} << 40)), Json::exception);
  EXPECT_THROW(whole_number<int64_t>(Json::parse("9223372036854775808")), Json::exception);
  EXPECT_THROW(whole_number<int64_t>(Json::parse("1e17")), Json::exception);
  EXPECT_THROW(whole_number<uint64_t>(Json::parse("-1")), Json::exception);
}

TEST(JsonText, AnErrorBehindNumbersThatAreNotFiniteIsFoundInItsLine) {
  try {
    parse_json<Json>("{\"a\": [NaN, -Infinity],\n \"b\": }", "config.json");
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("line 2"), std::string::npos) << error.what();
  }
}

TEST(JsonText, BytesThatAreNotUtf8AreReplaced) {
  EXPECT_EQ(as_utf8("sim:\xff"), "sim:\xef\xbf\xbd");
  EXPECT_EQ(as_utf8("k\xc3\xa4se"), "k\xc3\xa4se");
}

}  // namespace
}  // namespace gptq
