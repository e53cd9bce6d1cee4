// The tokenizer, compared with golden results of the tokenizers library, and on broken and hostile input.
#include "data/tokenizer.h"

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/unicode.h"
#include "temporary_folder.h"

namespace gptq {
namespace {

using nlohmann::json;

json golden(const std::string& name) {
  return json::parse(std::ifstream(std::filesystem::path(GPTQ_GOLDEN) / "tokenizers" / name));
}

json base_tokenizer(const std::string& name) {
  if (name == "demo")
    return json::parse(std::ifstream(std::filesystem::path(GPTQ_SOURCE) / "demo/model/tokenizer.json"));
  return golden("bases.json").at(name);
}

class TokenizerTest : public ::testing::Test {
 protected:
  Tokenizer make(const json& description) {
    folder_.write("tokenizer.json", description.dump());
    return Tokenizer(folder_.path());
  }
  // The message of the exception of type Expected that this tokenizer's constructor throws.
  template <typename Expected>
  std::string error_of(const json& description) {
    try {
      make(description);
    } catch (const Expected& error) {
      return error.what();
    }
    return "no error";
  }
  TemporaryFolder folder_;
};

// tokenizer.model of SentencePiece; vocab.json and merges.txt; Unigram models with SentencePiece's map of characters.
TEST(TokenizerFolders, EqualTransformersOnEveryGoldenString) {
  const json strings = golden("tokenizers.json").at("strings");
  for (const char* name : {"sentencepiece", "gpt2", "unigram", "unigram-bytes"}) {
    const Tokenizer tokenizer(std::filesystem::path(GPTQ_GOLDEN) / "tokenizers" / name);
    const json answers = golden(std::string(name) + "/answers.json");
    ASSERT_EQ(answers.size(), strings.size());
    for (size_t i = 0; i < strings.size(); ++i) {
      SCOPED_TRACE(std::string(name) + ": " + strings[i].dump());
      EXPECT_EQ(tokenizer.encode(strings[i].get<std::string>()), answers[i].at("ids").get<std::vector<int32_t>>());
    }
  }
}

TEST(OlderTokenizerFiles, ABrokenModelIsRefusedWhereverItBreaks) {
  std::ifstream stream(std::filesystem::path(GPTQ_GOLDEN) / "tokenizers/sentencepiece/tokenizer.model",
                       std::ios::binary);
  const std::string whole(std::istreambuf_iterator<char>(stream), {});
  std::mt19937 random(1);
  const TemporaryFolder folder;
  int refused = 0;
  for (int i = 0; i < 200; ++i) {
    std::string broken = whole;
    if (i % 2 == 0) {
      broken.resize(random() % whole.size());
    } else {
      for (int change = 0; change < 20; ++change) broken[random() % broken.size()] = static_cast<char>(random());
    }
    folder.write("tokenizer.model", broken);
    try {
      const Tokenizer tokenizer(folder.path());
      tokenizer.encode("what comes of it is a tokenizer");
    } catch (const InputError& error) {
      ++refused;
      EXPECT_NE(std::string(error.what()).find("tokenizer.model"), std::string::npos) << error.what();
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(OlderTokenizerFiles, AFolderWithNoneSaysWhatWasLookedFor) {
  const TemporaryFolder folder;
  try {
    const Tokenizer tokenizer(folder.path());
    FAIL() << "made a tokenizer of nothing";
  } catch (const InputError& error) {
    const std::string message = error.what();
    for (const char* name : {"tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "input_ids"})
      EXPECT_NE(message.find(name), std::string::npos) << message;
  }
}

TEST_F(TokenizerTest, EqualsTheTokenizersLibraryOnEveryGoldenString) {
  json all = golden("tokenizers.json");
  const json& strings = all.at("strings");
  int compared = 0;
  for (const auto& [name, variant] : all.items()) {
    if (!variant.is_object() || !variant.contains("answers")) continue;
    json description = base_tokenizer(variant.at("base"));
    description.update(variant.at("changes"));
    description.at("model").update(variant.at("model"));
    Tokenizer tokenizer = make(description);
    for (const json& answer : variant.at("answers")) {
      auto text = strings.at(answer.at("string").get<size_t>()).get<std::string>();
      auto ids = answer.at("ids").get<std::vector<int32_t>>();
      auto plain = answer.value("plain", ids);
      auto decoded = answer.value("decoded", text);
      auto decoded_all = answer.value("decoded_all", decoded);
      SCOPED_TRACE(name + ": " + json(text).dump());
      EXPECT_EQ(tokenizer.encode(text), ids);
      EXPECT_EQ(tokenizer.encode(text, false), plain);
      EXPECT_EQ(tokenizer.decode(ids), decoded);
      EXPECT_EQ(tokenizer.decode(ids, false), decoded_all);
      ++compared;
    }
  }
  EXPECT_GT(compared, 2000);
}

TEST_F(TokenizerTest, FindsTheIdsOfSpecialAndOrdinaryTokens) {
  Tokenizer tokenizer = make(base_tokenizer("llama2"));
  EXPECT_EQ(tokenizer.token_id("<s>"), 1);
  EXPECT_EQ(tokenizer.token_id("<0x00>"), 3);
  EXPECT_EQ(tokenizer.token_id("no such token"), -1);
}

TEST_F(TokenizerTest, LeavesUnknownIdsOutOfDecodedText) {
  Tokenizer tokenizer = make(base_tokenizer("gpt2"));
  auto ids = tokenizer.encode("Hello");
  ids.insert(ids.begin(), {-1, 1 << 29});
  EXPECT_EQ(tokenizer.decode(ids), "Hello");
}

TEST_F(TokenizerTest, RefusesInvalidUtf8WithTheByteOffset) {
  Tokenizer tokenizer = make(base_tokenizer("gpt2"));
  for (const std::string& broken :
       {std::string("abcde\x80"), std::string("abcde\xff\xfe"), std::string("abcde\xc0\xaf"),
        std::string("abcde\xed\xa0\x80"), std::string("abcde\xe6\xbc"), std::string("abcde\xf5\x80\x80\x80")}) {
    try {
      tokenizer.encode(broken);
      FAIL() << "no error for " << testing::PrintToString(broken);
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find("byte 5"), std::string::npos) << error.what();
    }
  }
}

TEST_F(TokenizerTest, NamesThePartThatItDoesNotKnow) {
  json sound = base_tokenizer("gpt2");
  auto broken = [&](const char* path, const json& value) {
    json description = sound;
    description[json::json_pointer(path)] = value;
    return error_of<UnsupportedError>(description);
  };
  auto expect_named = [](const std::string& message, const std::string& name) {
    EXPECT_NE(message.find(name), std::string::npos) << message;
    EXPECT_NE(message.find("input_ids work without a tokenizer"), std::string::npos) << message;
  };
  expect_named(broken("/normalizer", {{"type", "BertNormalizer"}}), "normalizer \"BertNormalizer\"");
  expect_named(broken("/pre_tokenizer", {{"type", "UnicodeScripts"}}), "pre-tokenizer \"UnicodeScripts\"");
  expect_named(broken("/post_processor", {{"type", "Strange"}}), "post-processor \"Strange\"");
  expect_named(broken("/decoder", {{"type", "CTC"}}), "decoder \"CTC\"");
  expect_named(broken("/model", {{"type", "WordPiece"}, {"vocab", json::array()}}), "model \"WordPiece\"");
  expect_named(broken("/model/dropout", 0.1), "\"dropout\"");
  expect_named(broken("/model/end_of_word_suffix", "</w>"), "\"end_of_word_suffix\"");
  json unfinished = {{"type", "Split"}, {"behavior", "Isolated"}, {"pattern", {{"Regex", "(a"}}}};
  expect_named(broken("/pre_tokenizer", unfinished), "(a");
}

TEST_F(TokenizerTest, RefusesABrokenFileNamingIt) {
  auto message = [&](const std::string& content) {
    folder_.write("tokenizer.json", content);
    try {
      Tokenizer tokenizer(folder_.path());
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  json without_model = base_tokenizer("gpt2");
  without_model.erase("model");
  json bad_merge = base_tokenizer("gpt2");
  bad_merge["model"]["merges"].push_back({"Hello", "nowhere"});
  json bad_id = base_tokenizer("gpt2");
  bad_id["model"]["vocab"]["odd"] = -3;
  for (const std::string& content : {std::string(""), std::string("{"), std::string("[1]"), std::string("\"x\""),
                                     std::string("null"), without_model.dump(), bad_merge.dump(), bad_id.dump()})
    EXPECT_NE(message(content).find("tokenizer.json"), std::string::npos) << message(content);
  EXPECT_NE(message(bad_merge.dump()).find("nowhere"), std::string::npos) << message(bad_merge.dump());
}

TEST_F(TokenizerTest, SaysThatTheFileIsMissing) {
  try {
    Tokenizer tokenizer(folder_.path());
    FAIL() << "no error";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("tokenizer.json is missing"), std::string::npos) << error.what();
  }
}

// Replaces a random part of a valid tokenizer.json: only this project's exceptions may be thrown.
TEST_F(TokenizerTest, OnlyEverRaisesErrorsOfItsOwnOnMutatedFiles) {
  json all = golden("tokenizers.json");
  std::vector<json> sound;
  for (const auto& [name, variant] : all.items()) {
    if (!variant.is_object() || !variant.contains("answers")) continue;
    sound.push_back(base_tokenizer(variant.at("base")));
    sound.back().update(variant.at("changes"));
  }
  const json strange = {nullptr, true,      -1,      3.5,  1e300,         100000000000,  "", "x", "[",
                        "(?<",   "\\p{Zz}", "a{3}+", "\\", json::array(), json::object()};
  std::mt19937 random(7);
  auto below = [&](size_t limit) { return static_cast<size_t>(random() % limit); };
  int refused = 0;
  for (int round = 0; round < 400; ++round) {
    json description = sound[below(sound.size())];
    json* part = &description;
    for (size_t depth = 1 + below(6); depth > 0 && part->is_structured() && !part->empty(); --depth)
      part = &*std::next(part->begin(), static_cast<int64_t>(below(std::min<size_t>(part->size(), 60))));
    *part = strange[below(strange.size())];
    try {
      Tokenizer tokenizer = make(description);
      tokenizer.decode(tokenizer.encode("Hello <s> w\u00f6rld \u6f22 1234\n"));
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

// A megabyte without a position to split at: quadratic code would take minutes.
TEST_F(TokenizerTest, EncodesVeryLongWordsInShortTime) {
  for (const char* name : {"gpt2", "llama3", "llama2"}) {
    Tokenizer tokenizer = make(base_tokenizer(name));
    for (const char* unit : {"a", "ab", " ", "\n", "\u00e9", "!", "1"}) {
      std::string text;
      while (text.size() < 1'000'000) text += unit;
      auto start = std::chrono::steady_clock::now();
      auto ids = tokenizer.encode(text);
      auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      EXPECT_LT(seconds, 20) << name << " " << unit;
      EXPECT_EQ(tokenizer.decode(ids), text) << name << " " << unit;
    }
  }
}

// Words beyond the limits for splitting and caching must give the same tokens.
TEST_F(TokenizerTest, EncodesALongWordAsItsPartsWouldBeInOneWord) {
  json description = base_tokenizer("gpt2");
  description["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  Tokenizer whole = make(description);
  Tokenizer split = make(base_tokenizer("gpt2"));
  std::string sentence =
      "Once upon a time there was a small house by the sea, and in it lived an old man with his dog.";
  EXPECT_EQ(whole.encode(sentence), split.encode(sentence));
}

TEST(UnicodeTest, ReplacesEachMaximalInvalidPart) {
  EXPECT_EQ(lossy_utf8("a\xe6\xbc"
                       "b\xff\xfe\xf0\x9f\x98"
                       "c"),
            "a\ufffdb\ufffd\ufffd\ufffdc");
  EXPECT_EQ(lossy_utf8("\xed\xa0\x80"), "\ufffd\ufffd\ufffd");
}

TEST(UnicodeTest, RoundTripsEveryCharacter) {
  for (char32_t character = 0; character < 0x110000; ++character) {
    if (character >= 0xd800 && character < 0xe000) continue;
    std::string text = "x";
    append_utf8(text, character);
    ASSERT_EQ(invalid_utf8_offset(text), -1) << static_cast<uint32_t>(character);
    size_t forward = 1, backward = text.size();
    ASSERT_EQ(next_character(text, forward), character);
    ASSERT_EQ(previous_character(text, backward), character);
    ASSERT_EQ(forward, text.size());
    ASSERT_EQ(backward, 1U);
  }
}

TEST(UnicodeTest, NormalizesAcrossTheEdgesOfAsciiRuns) {
  EXPECT_EQ(normalize("ae\u0301io", NormalForm::kNfc), "a\u00e9io");
  EXPECT_EQ(normalize("e\u0301", NormalForm::kNfc), "\u00e9");
  EXPECT_EQ(normalize("\u00e9 x \u00e9", NormalForm::kNfd), "e\u0301 x e\u0301");
  EXPECT_EQ(normalize(std::string_view("a\0\u00e9\0", 5), NormalForm::kNfd), std::string("a\0e\u0301\0", 6));
}

TEST(RegexTest, ReportsAMatchThatExceedsTheLimits) {
  Regex regex("(a+)+c");
  std::string text = std::string(60, 'a') + "!c";
  EXPECT_THROW(regex.for_each_match(text, [](size_t, size_t) {}), Error);
}

TEST(RegexTest, MatchesDeepGroupsOnLongText) {
  Regex regex("(?:a|b)+c");
  std::string text(2'000'000, 'a');
  text += 'c';
  size_t end = 0;
  regex.for_each_match(text, [&](size_t, size_t to) { end = to; });
  EXPECT_EQ(end, text.size());
}

}  // namespace
}  // namespace gptq
