// Tokenizers, chats and texts that are made to do harm: they are refused with one sentence, or take little time and
// memory.
#include <ctime>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/calibration.h"
#include "data/chat.h"
#include "data/tokenizer.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/unicode.h"
#include "temporary_folder.h"

namespace gptq {
namespace {

using nlohmann::json;

// Of processor time: linear code needs far less than one, also with sanitizers; quadratic code minutes.
constexpr double kSeconds = 20;

std::string repeated(std::string_view unit, size_t times) {
  std::string text;
  text.reserve(unit.size() * times);
  for (size_t i = 0; i < times; ++i) text += unit;
  return text;
}

// The message of the InputError that `act` throws; it is short, one line, and comes soon.
std::string error_of(const std::function<void()>& act) {
  const std::clock_t start = std::clock();
  std::string message = "no error";
  try {
    act();
  } catch (const InputError& error) {
    message = error.what();
  }
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, kSeconds) << message;
  EXPECT_LT(message.size(), 1000U) << message;
  EXPECT_EQ(message.find('\n'), message.npos) << message;
  return message;
}

void expect_in(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(message.find(part), message.npos) << part << " in: " << message;
}

// A token for each ASCII character, its code.
json simple() {
  json vocabulary = json::object();
  for (int c = 0; c < 128; ++c) vocabulary[std::string(1, static_cast<char>(c))] = c;
  return {{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}}};
}

json unigram_of_a(const json& unk_id) {
  const json pieces = json::array({json::array({"a", -1.0})});
  return {{"model", {{"type", "Unigram"}, {"unk_id", unk_id}, {"vocab", pieces}}}};
}

json with(const char* part, const json& value) {
  json tokenizer = simple();
  tokenizer[part] = value;
  return tokenizer;
}

json split_at(const std::string& regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}};
}

json replace(const json& pattern, const std::string& content) {
  return {{"type", "Replace"}, {"pattern", pattern}, {"content", content}};
}

json sequence(const char* list, const json& step, size_t times) {
  return {{"type", "Sequence"}, {list, json::array_t(times, step)}};
}

class HostileTest : public ::testing::Test {
 protected:
  Tokenizer make(const json& description) {
    folder_.write("tokenizer.json", description.dump());
    return Tokenizer(folder_.path());
  }
  std::string refusal(const json& description) {
    return error_of([&] { make(description); });
  }
  // Of a tokenizer that can be made.
  std::string refusal(const json& description, const std::string& text) {
    const Tokenizer tokenizer = make(description);
    std::string message = error_of([&] { tokenizer.encode(text); });
    if (message != "no error") expect_in(message, {"tokenizer.json"});
    return message;
  }
  std::vector<int32_t> ids(const json& description, const std::string& text) {
    std::vector<int32_t> ids;
    EXPECT_EQ(error_of([&] { ids = make(description).encode(text); }), "no error");
    return ids;
  }
  TemporaryFolder folder_;
};

TEST(HostileUnicode, CharactersEndWhereTheirTextDoes) {
  for (const std::string& whole : {std::string("\u00e9"), std::string("\u6f22"), std::string("\U0001f600")}) {
    for (size_t length = 1; length <= whole.size(); ++length) {
      const std::vector<char> cut(whole.begin(), whole.begin() + static_cast<int64_t>(length));  // no byte behind it
      const std::string_view text(cut.data(), cut.size());
      size_t forward = 0;
      next_character(text, forward);
      EXPECT_EQ(forward, length);
      const std::vector<char> rest(whole.end() - static_cast<int64_t>(length), whole.end());
      size_t backward = length;
      previous_character({rest.data(), rest.size()}, backward);
      EXPECT_EQ(backward, 0U);
    }
  }
}

TEST(HostileUnicode, OrdersLongRunsOfMarksInShortTime) {
  const size_t count = 100'000;
  std::string normal;
  EXPECT_EQ(error_of([&] { normal = normalize("a" + repeated("\u0315\u0316", count), NormalForm::kNfd); }), "no error");
  EXPECT_EQ(normal, "a" + repeated("\u0316", count) + repeated("\u0315", count));
}

TEST(HostileRegex, WhatDoesNotKeepToCharactersIsRefused) {
  for (const char* pattern : {R"(\C)", R"(a{3}\C)", R"([\C])", R"([a[^\C]])", R"(\X|\C|\R)", R"((?<=\C))"})
    expect_in(error_of([&] { Regex regex(pattern); }), {R"(\C)", "not supported"});
  for (const char* pattern : {"\\u\u20ac\u20ac\u20aca", "\\u12", "\\u", "\\u00e\u00e9", "[\\u12\u00e9x]"})
    expect_in(error_of([&] { Regex regex(pattern); }), {"\\u", "hexadecimal"});
  for (const char* pattern : {"(*LIMIT_MATCH=9)a", "(*NO_JIT)a", "a(*ACCEPT)"})
    expect_in(error_of([&] { Regex regex(pattern); }), {"(*"});
  expect_in(error_of([&] { Regex regex("a\xff"); }), {"UTF-8"});
  expect_in(error_of([&] { Regex regex(R"(\Q\E\x{d800})"); }), {"regular expression"});
}

TEST(HostileRegex, DeepAndLongPatternsAreRefused) {
  for (const size_t depth : {101, 5000, 60000}) {
    for (const char* open : {"[", "[a", "[^", "(", "(?:", "(?=", "(?<=", "(a|"})
      expect_in(error_of([&] { Regex regex(repeated(open, depth)); }), {"regular expression"});
    EXPECT_NE(error_of([&] { Regex regex(repeated("[a", depth) + repeated("]", depth)); }), "no error");
    EXPECT_NE(error_of([&] { Regex regex(repeated("(", 3 * depth) + repeated(")", 3 * depth)); }), "no error");
  }
  EXPECT_EQ(error_of([&] { Regex regex(repeated("[a", 100) + repeated("]", 100)); }), "no error");
  EXPECT_EQ(error_of([&] { Regex regex(repeated("(", 200) + repeated(")", 200)); }), "no error");
  for (const char* unit : {"a", "\u00e9", "{", "[:", "\\w", "\\p{L}", "a{2}+", "[^\\W&&a]"})
    error_of([&] { Regex regex(repeated(unit, 100'000)); });
  for (const char* pattern : {"((a{1,60000}){1,60000}){1,60000}", "(\\p{L}{1,9999}){1,999}", "(((a{999}){999}){999})"})
    error_of([&] { Regex(pattern).for_each_match(repeated("a", 10'000), [](size_t, size_t) {}); });
}

// Each takes time that grows with the square of the text or faster.
TEST(HostileRegex, MatchingThatTakesTooLongIsRefused) {
  const std::string text = repeated("ab", 20'000);
  for (const char* pattern :
       {R"(\p{L}+(?=1)|.)", R"(\p{L}+(?=1))", R"(\p{L}++1|.)", R"([a-z]+1|\p{L})", R"((?=.*1)x|.)", R"((a|b|ab)+[cd])",
        R"((?:(?:a*b*)*)*[cd])", R"((?:\p{L}(?=[ab]*+1)|\p{L})*2|.)", R"(a?.*a.*b.*[12])", R"((?<!1)\w+\d|.)",
        R"((?>\w+)!|(?>\w+)\?|.)", R"((?s:.)+?\z.|.)"}) {
    const Regex regex(pattern);
    expect_in(error_of([&] { regex.for_each_match(text, [](size_t, size_t) {}); }), {pattern, "takes too long"});
  }
}

TEST_F(HostileTest, AllPiecesOfATextShareItsBudget) {
  const json lines = split_at("\n"), slow = split_at(R"(\p{L}+(?=1)|.)");
  const json both = {{"type", "Sequence"}, {"pretokenizers", {lines, slow}}};
  const std::string text = repeated(repeated("a", 3000) + "\n", 100);
  expect_in(refusal(with("pre_tokenizer", both), text), {R"(\p{L}+(?=1)|.)", "takes too long"});
  EXPECT_EQ(ids(with("pre_tokenizer", both), "to be\nor not").size(), 12U);
}

TEST(HostileRegex, WhatIsMeasuredGivesTheSameMatches) {
  for (const size_t length : {1, 2, 60, 126, 127, 128, 129, 130, 255, 256, 1000}) {
    for (const char* unit : {"a", "\u00e9", "\u6f22"}) {
      const std::string word = repeated(unit, length), text = repeated(word + " ", 200);
      std::vector<std::string> words;
      Regex(R"(\p{L}+|\s+(?!\S)|\s+)").for_each_match(text, [&](size_t from, size_t to) {
        words.push_back(text.substr(from, to - from));
      });
      ASSERT_EQ(words.size(), 400U) << length;
      for (size_t i = 0; i < words.size(); i += 2) {
        ASSERT_EQ(words[i], word);
        ASSERT_EQ(words[i + 1], " ");
      }
      int ends = 0;
      Regex("$").for_each_match(text, [&](size_t from, size_t) { ends += from == text.size() ? 1 : 1000; });
      EXPECT_EQ(ends, 1);
    }
  }
}

TEST_F(HostileTest, ReplacementsOfOtherThanOneCharacterAreRefused) {
  for (const json& strange : {json(""), json("ab"), json(5), json(nullptr), json(repeated("a", 1'000'000))}) {
    for (const char* part : {"pre_tokenizer", "decoder"})
      expect_in(refusal(with(part, {{"type", "Metaspace"}, {"replacement", strange}})), {"Metaspace", "one character"});
    expect_in(refusal(with("decoder", {{"type", "Strip"}, {"content", strange}, {"start", 1}, {"stop", 0}})),
              {"Strip", "one character"});
  }
  for (const char* part : {"normalizer", "decoder"})
    expect_in(refusal(with(part, replace({{"String", ""}}, "a"))), {"empty", "pattern"});
  for (const json& count : {json(-1), json(1.5), json("1"), json(1e30)})
    expect_in(refusal(with("decoder", {{"type", "Strip"}, {"content", " "}, {"start", 0}, {"stop", count}})),
              {"Strip", "count"});
}

TEST_F(HostileTest, ADecoderStripsInShortTime) {
  json description = with("decoder", {{"type", "Strip"},
                                      {"content", "a"},
                                      {"start", std::numeric_limits<int64_t>::max()},
                                      {"stop", std::numeric_limits<int64_t>::max()}});
  description["model"]["vocab"][repeated("a", 1'000'000)] = 128;
  const Tokenizer tokenizer = make(description);
  const std::vector<int32_t> tokens = {'b', 128, 'a', 'c'};
  EXPECT_EQ(error_of([&] { EXPECT_EQ(tokenizer.decode(tokens), "bc"); }), "no error");
}

TEST_F(HostileTest, PartsThatMultiplyATextAreRefused) {
  const std::string many = repeated("a", 16);
  const json longer = replace({{"String", "a"}}, many), everywhere = replace({{"Regex", "^|$|."}}, many);
  expect_in(refusal(with("normalizer", sequence("normalizers", longer, 8)), "a"), {"normalizer Replace", "longer"});
  expect_in(refusal(with("normalizer", sequence("normalizers", everywhere, 8)), "a"), {"normalizer Replace"});
  expect_in(refusal(with("normalizer", replace({{"String", "a"}}, repeated("a", 100'000))), repeated("a", 100'000)),
            {"normalizer Replace"});
  // Before each part of a text between added tokens.
  json prepending = with("normalizer", {{"type", "Prepend"}, {"prepend", repeated("b", 100'000)}});
  prepending["added_tokens"] = {{{"id", 128}, {"content", "<s>"}}};
  expect_in(refusal(prepending, repeated("a<s>", 1000)), {"normalizer Prepend"});
  // Twice as many words with each step, as each gets a space in front.
  const json words = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  expect_in(refusal(with("pre_tokenizer", sequence("pretokenizers", words, 40)), "a"), {"pre-tokenizer ByteLevel"});

  const Tokenizer decoding = make(with("decoder", sequence("decoders", longer, 8)));
  const std::vector<int32_t> tokens(100, 'a');
  expect_in(error_of([&] { decoding.decode(tokens); }), {"decoder Replace", "longer"});
}

TEST_F(HostileTest, ACharacterMapIsHeldToItsText) {
  // A trie that maps "a" (unit 97) to the text at 0, in base64.
  const auto map_to = [](const std::string& text) {
    std::vector<uint32_t> units(256, 0);
    units[0] = 0;  // the root's children are at 0
    units['a'] = 'a' | 1U << 8 | 2U << 10;
    units['a' ^ 2] = 1U << 31;
    const auto bytes = static_cast<uint32_t>(units.size() * sizeof units[0]);
    std::string all(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    all.append(reinterpret_cast<const char*>(units.data()), bytes).append(text);
    constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string base64;
    for (size_t i = 0; i < all.size(); i += 3) {
      uint32_t held = 0;
      for (size_t k = 0; k < 3; ++k) held = held << 8 | (i + k < all.size() ? static_cast<uint8_t>(all[i + k]) : 0U);
      for (int shift = 18; shift >= 0; shift -= 6) base64 += kAlphabet[held >> shift & 63];
    }
    return json{{"type", "Precompiled"}, {"precompiled_charsmap", base64}};
  };
  EXPECT_EQ(ids(with("normalizer", map_to("bc")), "xaa"), (std::vector<int32_t>{'x', 'b', 'c', 'b', 'c'}));
  expect_in(refusal(with("normalizer", map_to(repeated("a", 100'000))), repeated("a", 10'000)),
            {"normalizer Precompiled", "longer"});
  expect_in(refusal(with("normalizer", map_to("b\xf0\x9f")), "a"), {"Precompiled", "UTF-8"});
}

TEST_F(HostileTest, PartsOfVeryManyStepsAreRefused) {
  const std::vector<std::tuple<const char*, const char*, json>> parts = {
      {"normalizer", "normalizers", {{"type", "NFC"}}},
      {"pre_tokenizer", "pretokenizers", {{"type", "Whitespace"}}},
      {"post_processor", "processors", {{"type", "ByteLevel"}}},
      {"decoder", "decoders", {{"type", "Fuse"}}}};
  for (const auto& [part, list, step] : parts) {
    EXPECT_EQ(refusal(with(part, sequence(list, step, 60))), "no error");
    expect_in(refusal(with(part, sequence(list, step, 100))), {part, "steps"});
    json deep = step;
    for (int i = 0; i < 40; ++i) deep = sequence(list, deep, 1);
    EXPECT_EQ(refusal(with(part, deep)), "no error");
    for (int i = 0; i < 100; ++i) deep = sequence(list, deep, 1);
    expect_in(refusal(with(part, deep)), {"tokenizer.json", "nested deeper"});
  }
}

TEST_F(HostileTest, LongAddedTokensThatNearlyMatchEverywhereAreRefused) {
  json description = simple();
  description["added_tokens"] = {{{"id", 128}, {"content", repeated("a", 100'000) + "b"}}};
  expect_in(refusal(description, repeated("a", 200'000)), {"added tokens", "takes too long"});
  EXPECT_EQ(ids(description, "a" + repeated("a", 100'000) + "b"), (std::vector<int32_t>{'a', 128}));
  json unigram = unigram_of_a(0);
  unigram["model"]["vocab"].push_back({repeated("a", 100'000), -2.0});
  expect_in(refusal(unigram, repeated("a", 200'000)), {"Unigram", "takes too long"});
}

TEST_F(HostileTest, WhiteSpaceAroundAddedTokensTakesLittleTime) {
  const std::string text = repeated(" ", 200'000);
  for (const char* side : {"lstrip", "rstrip"}) {
    json description = simple();
    description["added_tokens"] = {{{"id", 128}, {"content", " "}, {side, true}}};
    EXPECT_EQ(ids(description, text).size(), text.size());
  }
}

TEST_F(HostileTest, ManyAddedTokensAreReadInShortTime) {
  json description = simple();
  for (int i = 0; i < 100'000; ++i)
    description["added_tokens"].push_back({{"id", 128 + i}, {"content", "<" + std::to_string(i) + ">"}});
  EXPECT_EQ(ids(description, "a<7><99999>").size(), 3U);
}

TEST_F(HostileTest, IdsThatAreNoTokenIdsAreRefused) {
  for (const json& id : {json(2147483648), json(-5), json(1.5), json(1.1e22), json(18446744073709551615U), json("1"),
                         json(nullptr), json(true), json(json::array()), json(repeated("1", 100'000))}) {
    const std::vector<std::string> parts = {"id", "integer from 0"};
    expect_in(refusal(with("post_processor", {{"type", "BertProcessing"}, {"cls", {"x", id}}, {"sep", {"y", 1}}})),
              parts);
    expect_in(refusal(with("post_processor", {{"type", "RobertaProcessing"}, {"cls", {"x", 1}}, {"sep", {"y", id}}})),
              parts);
    const json single = {{{"SpecialToken", {{"id", "x"}}}}, {{"Sequence", {{"id", "A"}}}}};
    expect_in(refusal(with("post_processor", {{"type", "TemplateProcessing"},
                                              {"single", single},
                                              {"special_tokens", {{"x", {{"ids", json::array({1, id})}}}}}})),
              parts);
    json vocabulary = simple();
    vocabulary["model"]["vocab"]["odd"] = id;
    expect_in(refusal(vocabulary), {"odd", "integer from 0"});
    if (!id.is_null()) expect_in(refusal(unigram_of_a(id)), {"unk_id"});
  }
}

TEST_F(HostileTest, APostProcessorThatAddsVeryManyTokensIsRefused) {
  json single = json::array();
  for (int i = 0; i < 2000; ++i) single.push_back({{"SpecialToken", {{"id", "x"}}}});
  single.push_back({{"Sequence", {{"id", "A"}}}});
  const json tokens = {{"x", {{"ids", json::array_t(2000, 1)}}}};
  expect_in(
      refusal(with("post_processor", {{"type", "TemplateProcessing"}, {"single", single}, {"special_tokens", tokens}})),
      {"special tokens"});
}

TEST_F(HostileTest, IdsOfOlderFilesAreHeldToTheSameRules) {
  folder_.write("merges.txt", "");
  for (const char* id : {"1.1e22", "-1", "\"1\"", "2147483648", "[]"}) {
    folder_.write("vocab.json", std::string(R"({"a": 0, "odd": )") + id + "}");
    expect_in(error_of([&] { Tokenizer tokenizer(folder_.path()); }), {"merges.txt", "odd", "integer from 0"});
  }
  folder_.write("vocab.json", R"({"a": 0})");
  for (const char* id : {"", "x", "1.5", "99999999999999999999"}) {
    folder_.write("tokenizer_config.json", json{{"added_tokens_decoder", {{id, {{"content", "b"}}}}}}.dump());
    expect_in(error_of([&] { Tokenizer tokenizer(folder_.path()); }), {"added_tokens_decoder", "id"});
  }
}

TEST_F(HostileTest, PartsOfOtherKindsThanExpectedAreRefused) {
  for (const char* part : {"normalizer", "pre_tokenizer", "post_processor", "decoder", "model"}) {
    for (const json& strange : {json(5), json("x"), json(json::array({1})), json(json::object()), json(true)})
      expect_in(refusal(with(part, strange)), {"tokenizer.json"});
  }
  for (const json& strange : {json(5), json("x"), json::array({1}), json::array({json::object()})})
    expect_in(refusal(with("added_tokens", strange)), {"tokenizer.json"});
  for (const json& strange : {json(5), json(nullptr), json::array({1, 2}), json("a")})
    expect_in(refusal(strange), {"tokenizer.json"});
  expect_in(refusal(unigram_of_a(nullptr), "b"), {"unk_id"});
}

TEST_F(HostileTest, LongValuesAreCutInMessages) {
  const std::string value = repeated("\u6f22", 100'000);
  for (const char* part : {"normalizer", "pre_tokenizer", "post_processor", "decoder", "model"})
    expect_in(refusal(with(part, {{"type", value}})), {"..."});
  expect_in(refusal(with("pre_tokenizer", split_at("(" + repeated("\u6f22", 10'000)))), {"..."});
  expect_in(refusal(with("pre_tokenizer", split_at("(" + value))), {"..."});
  expect_in(refusal(with("post_processor", {{"type", "TemplateProcessing"},
                                            {"single", {{{"SpecialToken", {{"id", value}}}}}},
                                            {"special_tokens", json::object()}})),
            {"..."});
  json merges = simple();
  merges["model"]["merges"] = {value};
  expect_in(refusal(merges), {"merge 0", "..."});
  merges["model"]["merges"] = {{value, value}};
  expect_in(refusal(merges), {"merge 0", "..."});
}

TEST_F(HostileTest, LinesOfJsonAreHeldToLimits) {
  const auto read = [&](const std::string& line) {
    const TextSource source{folder_.write("a.jsonl", line), [&]() -> const Tokenizer& { throw Error("not needed"); }};
    return error_of([&] { read_documents(source); });
  };
  for (const size_t depth : {101, 100'000, 1'000'000}) {
    expect_in(read(repeated("[", depth)), {"element 1", "ends in the middle"});
    expect_in(read("[" + repeated("[", depth) + repeated("]", depth + 1)), {"element 1", "nested deeper"});
    expect_in(read("[1, " + repeated("[", depth)), {"line 1", "nested deeper"});
    expect_in(read("{\"a\": 1}\n" + repeated("[", depth) + repeated("]", depth)), {"line 1"});
    expect_in(read("[1]\n" + repeated("[", depth) + repeated("]", depth)), {"line 2", "nested deeper"});
    expect_in(read("{\"input_ids\": " + repeated("{\"a\":", depth) + "1" + repeated("}", depth + 1)),
              {"nested deeper"});
  }
  expect_in(read("[" + repeated("[", 90) + repeated("]", 91)), {"found an array", "token id"});
  expect_in(read("[1, \"" + repeated("x", 1'000'000) + "\"]"), {"...", "token id"});
  expect_in(read("[1" + repeated("x", 1'000'000) + "]"), {"line 1", "broken JSON"});
  expect_in(read("{\"" + repeated("x", 1'000'000)), {"line 1", "broken JSON"});
  expect_in(read("[99999999999999999999]"), {"token id"});
  expect_in(read("[1e400]"), {"line 1"});
  EXPECT_EQ(read("{\"input_ids\": [1], \"more\": \"" + repeated("[", 1000) + "\"}"), "no error");
}

TEST_F(HostileTest, ChatTemplatesOfAnyKindAreRefusedInShortTime) {
  for (const json& source :
       {json(5), json::array({5, json::array(), {{"name", 5}}, {{"name", "default"}, {"template", 5}}}),
        json(repeated("{%-", 100'000)), json(repeated("{{ '+'", 80'000)), json(repeated("['role']", 60'000)),
        json(repeated("x", 1'000'000)), json(repeated("{#", 200'000)), json("{{" + repeated(" ", 500'000)),
        json("{{ '" + repeated("\\", 500'000))}) {
    folder_.write("tokenizer_config.json",
                  json{{"chat_template", source}, {"bos_token", {{"content", 5}}}, {"eos_token", 5}}.dump());
    error_of([&] { ChatTemplate chat(folder_.path()); });
  }
}

// What a template makes of one short message: an error, or "no error".
class HostileChatTest : public HostileTest {
 protected:
  std::string error_of_chat(const std::string& source) {
    folder_.write("chat_template.jinja", source);
    const Json messages = Json::array({{{"role", "user"}, {"content", "abc"}}});
    return error_of([&] { ChatTemplate(folder_.path()).render({.messages = messages}); });
  }
};

TEST_F(HostileChatTest, NestingIsLimited) {
  for (const auto& [open, inside, close] :
       std::vector<std::tuple<std::string, std::string, std::string>>{{"(", "1", ")"},
                                                                      {"[", "1", "]"},
                                                                      {"{1:", "1", "}"},
                                                                      {"not ", "1", ""},
                                                                      {"-", "1", ""},
                                                                      {"1 + ", "1", ""},
                                                                      {"1 ~ (", "1", ")"},
                                                                      {"1 if 1 else ", "1", ""},
                                                                      {"x(", "1", ")"},
                                                                      {"1 < (", "1", ")"},
                                                                      {"", "x", ".a"},
                                                                      {"", "x", "[0]"},
                                                                      {"", "x", "()"},
                                                                      {"", "x", "|upper"},
                                                                      {"", "x", " ** 1"},
                                                                      {"", "x", " and x"}}) {
    const std::string source = "{{ " + repeated(open, 20'000) + inside + repeated(close, 20'000) + " }}";
    expect_in(error_of_chat(source), {"chat_template.jinja", "levels"});
  }
  expect_in(error_of_chat(repeated("{% if 1 %}", 20'000) + repeated("{% endif %}", 20'000)), {"100 levels"});
  expect_in(error_of_chat(repeated("{% for x in [1] %}", 20'000)), {"100 levels"});
  expect_in(error_of_chat("{% set " + repeated("(", 20'000) + "a" + repeated(")", 20'000) + " = 1 %}"), {"100 levels"});
  EXPECT_EQ(error_of_chat("{{ " + repeated("(", 40) + "1" + repeated(")", 40) + " }}"), "no error");
  EXPECT_EQ(error_of_chat("{{ 'a' " + repeated("~ 'a'", 20'000) + " }}"), "no error");
}

TEST_F(HostileChatTest, RecursionIsLimited) {
  expect_in(error_of_chat("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), {"line 1", "1000 levels"});
  expect_in(error_of_chat("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}"), {"1000 levels"});
  expect_in(error_of_chat("{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}"
                          "{{ m(40) }}"),
            {"steps"});
  expect_in(error_of_chat("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"), {"1000 levels"});
  expect_in(error_of_chat("{% macro a() %}{{ caller() }}{% endmacro %}{% macro b() %}{% call a() %}{{ b() }}"
                          "{% endcall %}{% endmacro %}{{ b() }}"),
            {"1000 levels"});
  expect_in(error_of_chat("{% set n = namespace(x=[]) %}{% for i in range(2000) %}{% set n.x = [n.x] %}{% endfor %}"
                          "{{ n.x }}"),
            {"1000 levels"});
  expect_in(error_of_chat("{% set n = namespace(x=[]) %}{% for i in range(2000) %}{% set n.x = [n.x] %}{% endfor %}"
                          "{{ n.x | tojson }}"),
            {"1000 levels"});
  expect_in(error_of_chat("{% set n = namespace(x=[], y=[]) %}{% for i in range(2000) %}{% set n.x = [n.x] %}"
                          "{% set n.y = [n.y] %}{% endfor %}{{ n.x == n.y }}"),
            {"1000 levels"});
  EXPECT_EQ(error_of_chat("{% set n = namespace() %}{% set n.n = n %}{{ n.n.n.n is defined }}"), "no error");
}

TEST_F(HostileChatTest, StepsAreLimited) {
  const std::string loop = "{% for i in range(100000) %}";
  expect_in(error_of_chat(loop + loop + "{% endfor %}{% endfor %}"), {"chat_template.jinja, line 1", "than"});
  expect_in(error_of_chat(loop + loop + "x{% endfor %}{% endfor %}"), {"than"});
  expect_in(error_of_chat("{% for i in range(10**9) %}{% endfor %}"), {"range()"});
  expect_in(error_of_chat("{% set x = range(100000) | list %}" + loop + "{{ -1 in x }}{% endfor %}"), {"steps"});
  expect_in(error_of_chat("{% set x = 'a' * 1000000 %}" + loop + "{{ x.find('b') }}{% endfor %}"), {"steps"});
  expect_in(error_of_chat("{% set x = 'a' * 1000000 %}" + loop + "{{ x | upper | length }}{% endfor %}"), {"than"});
  expect_in(error_of_chat("{% set x = 'a' * 1000000 %}" + loop + "{{ x.strip('b' * 10000) | length }}{% endfor %}"),
            {"than"});
  expect_in(error_of_chat("{% set x = [0] %}{% set n = namespace(x=[0]) %}{% for i in range(60) %}"
                          "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x == [n.x] }}{{ n.x | string | length }}"),
            {"than"});
  expect_in(error_of_chat("{% set n = namespace(x=[0], y=[0]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
                          "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}"),
            {"steps"});
}

TEST_F(HostileChatTest, SizesAreLimited) {
  const std::string doubling = "{% set n = namespace(x='abc', y=[1]) %}{% for i in range(60) %}";
  for (const std::string& grown :
       {std::string("{{ 'a' * 10**9 }}"),
        std::string("{{ [1] * 10**9 }}"),
        std::string("{{ 10**18 * 'ab' }}"),
        std::string("{{ ('a' * 10**7) | list }}"),
        std::string("{{ '%1000000000d' % 1 }}"),
        std::string("{{ '{:1000000000}'.format(1) }}"),
        std::string("{{ 'a'.center(10**12) }}"),
        std::string("{{ 'a'.ljust(9223372036854775807, '\u00e9') }}"),
        std::string("{{ 'a'.zfill(10**15) }}"),
        std::string("{{ ('a' * 10000).replace('', 'b' * 100000) }}"),
        std::string("{{ ('b' * 100000).join('a' * 10000) }}"),
        std::string("{{ ('a\n' * 10000) | indent(100000) }}"),
        std::string("{{ 'a' | indent(10**15) }}"),
        std::string("{{ [1] | batch(10**12, 'x') | list }}"),
        std::string("{{ [] | slice(10**12) | list }}"),
        std::string("{{ [[1]] | tojson(indent=10**12) }}"),
        std::string("{{ ([[[1]]] * 1000) | tojson(indent=1000000) }}"),
        std::string("{{ (',' * 10**7).split(',') }}"),
        std::string("{{ ('\n' * 10**7).splitlines() }}"),
        std::string("{{ ('<' * 10**7) | e | e }}"),
        std::string("{{ '%s%s%s%s' % (('a' * 10**7,) * 4) }}"),
        std::string("{{ 'a' | center(10**12) }}"),
        doubling + "{% set n.x = n.x ~ n.x %}{% endfor %}",
        doubling + "{% set n.x = n.x + n.x %}{% endfor %}",
        doubling + "{% set n.y = n.y + n.y %}{% endfor %}",
        doubling + "{% set n.x = [n.x, n.x] | join %}{% endfor %}",
        doubling + "{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
        doubling + "{% set n.x = n.x | tojson | tojson %}{% endfor %}",
        doubling + "{% set n.x = n.x.replace('a', 'aa') %}{% endfor %}",
        doubling + "{% set n.x = '{0}{0}'.format(n.x) %}{% endfor %}",
        doubling + "{% set n.x = '%s%s' % (n.x, n.x) %}{% endfor %}",
        doubling + "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
        doubling + "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}",
        doubling + "{% set n.x = {'a': n.x, 'b': n.x} %}{% endfor %}{{ n.x | tojson(indent=4) }}"})
    expect_in(error_of_chat(grown), {"chat_template.jinja, line "});
}

TEST_F(HostileChatTest, NumbersOfAnySizeAreHandled) {
  for (const char* number :
       {"9223372036854775807 + 1", "-9223372036854775807 - 2", "9223372036854775807 * 2", "2 ** 64",
        "(-9223372036854775807 - 1) // -1", "-(-9223372036854775807 - 1)", "(-9223372036854775807 - 1) | abs",
        "1e300 | int", "'99999999999999999999' | int", "99999999999999999999"})
    expect_in(error_of_chat(std::string("{{ ") + number + " }}"), {"64 bits"});
  for (const char* number :
       {"(-9223372036854775807 - 1) % -1", "[1][9223372036854775807]", "'a'[-9223372036854775807:]",
        "[1, 2][::-9223372036854775807]", "[1, 2][::9223372036854775807]", "1e308 * 10 - 1e309",
        "[(1e308 * 10) - (1e308 * 10), 1.0, 2] | sort", "'%.500f' % 1e300", "'{:.100000}'.format('a')"})
    EXPECT_EQ(error_of_chat(std::string("{{ ") + number + " }}"), "no error") << number;
}

TEST_F(HostileChatTest, LongNamesAndMessagesAreCut) {
  const std::string name = repeated("x", 100'000), lines = repeated("x\n", 1000);
  expect_in(error_of_chat("{{ " + name + "() }}"), {"...", "undefined"});
  expect_in(error_of_chat("{{ raise_exception('" + name + "') }}"), {"..."});
  expect_in(error_of_chat("{{ raise_exception('" + lines + "') }}"), {"x x x", "..."});
  expect_in(error_of_chat("{{ 1 | " + name + " }}"), {"..."});
  expect_in(error_of_chat("{{ 1 is " + name + " }}"), {"..."});
  expect_in(error_of_chat("{% " + name + " %}"), {"..."});
  expect_in(error_of_chat("{{ 1 '" + lines + "' }}"), {"..."});
  expect_in(error_of_chat("{{ messages['" + lines + "'].x }}"), {"..."});
  expect_in(error_of_chat("{{ '%(" + lines + ")s' % {} }}"), {"..."});
  expect_in(error_of_chat("{{ '{" + lines + "}'.format() }}"), {"..."});
  expect_in(error_of_chat("a\xff"), {"UTF-8"});
}

}  // namespace
}  // namespace gptq
