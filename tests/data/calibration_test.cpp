// Text sources: how they are cut into sequences, and the error for each kind of bad input.
#include "data/calibration.h"

#include <iostream>
#include <limits>
#include <numeric>
#include <set>
#include <sstream>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "temporary_folder.h"

namespace gptq {
namespace {

using nlohmann::json;

// Replaces standard input during its lifetime.
class StandardInput {
 public:
  explicit StandardInput(const std::string& text) : stream_(text), before_(std::cin.rdbuf(stream_.rdbuf())) {}
  ~StandardInput() { std::cin.rdbuf(before_); }

 private:
  std::istringstream stream_;
  std::streambuf* before_;
};

// One token per ASCII character, its code. "<s>", token 128, is added before every text.
json character_tokenizer() {
  json vocabulary = json::object();
  for (int c = 0; c < 128; ++c) vocabulary[std::string(1, static_cast<char>(c))] = c;
  json start = {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}};
  return {{"normalizer", nullptr},
          {"pre_tokenizer", nullptr},
          {"decoder", {{"type", "Fuse"}}},
          {"added_tokens", {{{"id", 128}, {"content", "<s>"}, {"special", true}}}},
          {"post_processor",
           {{"type", "TemplateProcessing"}, {"single", start}, {"special_tokens", {{"<s>", {{"ids", {128}}}}}}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}}}};
}

class CalibrationTest : public ::testing::Test {
 protected:
  CalibrationTest() {
    folder_.write("tokenizer.json", character_tokenizer().dump());
    tokenizer_.emplace(folder_.path());
  }

  TextSource file(const std::string& name, const std::string& content) {
    return {folder_.write(name, content), [this]() -> const Tokenizer& { return *tokenizer_; }};
  }
  TextSource ids_only(const std::string& name, const std::string& content) {
    return {folder_.write(name, content),
            []() -> const Tokenizer& { throw InputError("no tokenizer is needed here"); }};
  }
  TextSource standard_input() {
    return {"-", [this]() -> const Tokenizer& { return *tokenizer_; }};
  }

  static std::string error_of(const TextSource& source, int64_t length = 4) {
    try {
      read_calibration(source, {2, length, 0});
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }
  static void expect_in(const std::string& message, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }

  TemporaryFolder folder_;
  std::optional<Tokenizer> tokenizer_;
};

// Ids 128, 0, 1, ..., 99 with <s>: position p > 0 has id p - 1.
std::string hundred_characters() {
  std::string text(100, '\0');
  std::iota(text.begin(), text.end(), '\0');
  return text;
}

TEST_F(CalibrationTest, SpreadsWindowsEvenlyOverAText) {
  auto sequences = read_calibration(file("a.txt", hundred_characters()), {4, 10, 0});
  ASSERT_EQ(sequences.size(), 4U);  // windows 0, 2, 5, 7 of 10
  int64_t starts[] = {0, 20, 50, 70};
  for (size_t i = 0; i < 4; ++i) {
    ASSERT_EQ(sequences[i].size(), 10U);
    EXPECT_EQ(sequences[i][0], starts[i] == 0 ? 128 : starts[i] - 1);
    EXPECT_EQ(sequences[i][9], starts[i] + 8);
  }
}

TEST_F(CalibrationTest, GivesAsManyWholeWindowsAsAShortTextHas) {
  auto sequences = read_calibration(file("a.txt", hundred_characters()), {128, 30, 0});
  ASSERT_EQ(sequences.size(), 3U);
  EXPECT_EQ(sequences[2].back(), 88);
  EXPECT_EQ(read_calibration(file("a.txt", hundred_characters()), {128, 30, 7}), sequences);
}

TEST_F(CalibrationTest, ASeedDrawsItsOwnWindowsAndAlwaysTheSame) {
  std::string text(64 * 100, 'x');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('0' + i / 100);
  auto drawn = [&](uint64_t seed) { return read_calibration(file("a.txt", text), {8, 100, seed}); };
  EXPECT_EQ(drawn(1), drawn(1));
  EXPECT_NE(drawn(1), drawn(0));
  EXPECT_NE(drawn(1), drawn(2));
  auto sequences = drawn(3);
  std::set<TokenSequence> different(sequences.begin(), sequences.end());
  EXPECT_EQ(different.size(), 8U);
  for (size_t i = 1; i < sequences.size(); ++i) EXPECT_LT(sequences[i - 1][50], sequences[i][50]);
}

TEST_F(CalibrationTest, JoinsJsonlDocumentsEachWithItsSpecialTokens) {
  auto source = file("a.jsonl", "{\"text\": \"abc\"}\r\n\n{\"text\": \"\"}\n{\"text\": \"de\", \"more\": 1}");
  EXPECT_EQ(read_documents(source), (std::vector<TokenSequence>{{128, 'a', 'b', 'c'}, {128}, {128, 'd', 'e'}}));
  EXPECT_EQ(read_calibration(source, {9, 3, 0}), (std::vector<TokenSequence>{{128, 'a', 'b'}, {'c', 128, 128}}));
  EXPECT_EQ(read_windows(source, 4, 0), (std::vector<TokenSequence>{{128, 'a', 'b', 'c'}, {128, 128, 'd', 'e'}}));
  EXPECT_EQ(read_windows(source, 4, 1), (std::vector<TokenSequence>{{128, 'a', 'b', 'c'}}));
}

TEST_F(CalibrationTest, IdsInMemoryAreCutAsThoseOfAFile) {
  std::vector<TokenSequence> ids;
  std::string lines;
  for (int32_t i = 0; i < 12; ++i) {
    ids.emplace_back();
    for (int32_t k = 0; k < 3 + i % 5; ++k) ids.back().push_back(10 * i + k);
    lines += "{\"input_ids\": [";
    for (size_t k = 0; k < ids.back().size(); ++k) lines += (k == 0 ? "" : ", ") + std::to_string(ids.back()[k]);
    lines += "]}\n";
  }
  const TextSource in_file = ids_only("ids.jsonl", lines);
  const TextSource in_memory{.file = "none", .tokenizer = in_file.tokenizer, .ids = &ids};
  for (const uint64_t seed : {0U, 5U}) {
    for (const int64_t samples : {4, 40})
      EXPECT_EQ(read_calibration(in_memory, {samples, 5, seed}), read_calibration(in_file, {samples, 5, seed}));
  }
  EXPECT_EQ(read_documents(in_memory), ids);
  ids[3][1] = -7;
  expect_in(error_of(in_memory), {"token ids", "sequence 3", "-7"});
  ids[3].clear();
  expect_in(error_of(in_memory), {"sequence 3", "nothing"});
}

TEST_F(CalibrationTest, TakesIdsLineByLineWithoutATokenizer) {
  auto source =
      ids_only("a.jsonl", "{\"input_ids\": [1, 2, 3, 4]}\n[5]\n{\"input_ids\": [6, 7]}\n{\"input_ids\": [8, 9]}\n");
  EXPECT_EQ(read_calibration(source, {3, 3, 0}), (std::vector<TokenSequence>{{1, 2, 3}, {5}, {6, 7}}));
  EXPECT_EQ(read_calibration(source, {3, 3, 5}).size(), 3U);
  EXPECT_EQ(read_windows(source, 2, 0), (std::vector<TokenSequence>{{1, 2, 3, 4}, {6, 7}, {8, 9}}));
  EXPECT_EQ(read_windows(source, 2, 2), (std::vector<TokenSequence>{{1, 2, 3, 4}, {6, 7}}));
  EXPECT_EQ(read_documents(source).size(), 4U);
}

TEST_F(CalibrationTest, ReadsStandardInputOfEitherKind) {
  {
    StandardInput input("abcdef");
    EXPECT_EQ(read_documents(standard_input()), (std::vector<TokenSequence>{{128, 'a', 'b', 'c', 'd', 'e', 'f'}}));
  }
  StandardInput input(" \n{\"input_ids\": [1, 2]}");
  EXPECT_EQ(read_documents(standard_input()), (std::vector<TokenSequence>{{1, 2}}));
}

TEST_F(CalibrationTest, NamesWhatIsWrongWithAFile) {
  TextSource source = file("a.txt", "");
  expect_in(error_of(source), {"a.txt", "empty"});
  expect_in(error_of(file("a.txt", " \n\t\n")), {"a.txt", "empty"});
  expect_in(error_of(file("a.txt", "ab\nc\xff")), {"a.txt", "UTF-8", "byte 4", "line 2"});
  expect_in(error_of(file("a.txt", "abc"), 10), {"a.txt", "too short", "4 tokens found", "10 needed"});
  source.file = (folder_.path() / "none.txt").string();
  expect_in(error_of(source), {"none.txt", "does not exist"});
  source.file = folder_.path().string();
  expect_in(error_of(source), {"is a folder"});
  source.file = "/proc/self/mem";  // whose first page cannot be read
  expect_in(error_of(source), {"/proc/self/mem: cannot read it", "error"});
  StandardInput input("");
  expect_in(error_of(standard_input()), {"stdin", "empty"});
}

TEST_F(CalibrationTest, NamesTheLineThatIsWrong) {
  const std::string good = "{\"input_ids\": [1, 2]}\n";
  std::vector<std::pair<std::string, std::vector<std::string>>> cases = {
      {"{\"input_ids\": [1, 2}", {"broken JSON"}},
      {"{\"input_ids\": []}", {"input_ids", "at least one"}},
      {"{\"input_ids\": 5}", {"input_ids"}},
      {"{\"input_ids\": [1, -2]}", {"-2", "token id"}},
      {"{\"input_ids\": [1, 2.5]}", {"2.5", "token id"}},
      {"{\"input_ids\": [\"a\"]}", {"\"a\"", "token id"}},
      {"{\"input_ids\": [18446744073709551615]}", {"18446744073709551615"}},
      {"{\"input_ids\": [-9223372036854775808]}", {"-9223372036854775808"}},
      {"{\"text\": \"x\"}", {"\"input_ids\" is missing", "one kind"}},
      {"3", {"number", "object"}},
  };
  for (auto& [line, parts] : cases) {
    parts.push_back("a.jsonl, line 3");
    expect_in(error_of(ids_only("a.jsonl", good + "\n" + line + "\n")), parts);
  }
  expect_in(error_of(file("a.jsonl", "{\"prompt\": \"x\"}")),
            {"line 1", "\"text\", \"messages\" and \"input_ids\"", "\"prompt\""});
  expect_in(error_of(file("a.jsonl", "{\"text\": \"abcdef\"}\n{\"text\": 7}")), {"line 2", "number", "string"});
  expect_in(error_of(file("a.jsonl", "{\"text\": \"abcdef\"}\n{\"input_ids\": [7]}")),
            {"line 2", "\"text\" is missing"});
}

TEST_F(CalibrationTest, RefusesRequestsThatMakeNoSense) {
  auto source = file("a.txt", "abcdef");
  EXPECT_THROW(read_calibration(source, {0, 4, 0}), InputError);
  EXPECT_THROW(read_calibration(source, {1, 0, 0}), InputError);
  EXPECT_THROW(read_windows(source, 1, 0), InputError);
  EXPECT_THROW(read_windows(source, 2, -1), InputError);
  EXPECT_THROW(read_windows(source, 100, 0), InputError);
  EXPECT_THROW(read_windows(ids_only("a.jsonl", "[1]\n[2]"), 2, 0), InputError);
}

TEST_F(CalibrationTest, RendersMessagesWithoutSpecialTokensOfTheTokenizer) {
  json config = {{"chat_template",
                  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
                  "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"}};
  folder_.write("tokenizer_config.json", config.dump());
  auto source = file("a.jsonl", R"({"messages": [{"role": "user", "content": "Hi"}]})");
  auto documents = read_documents(source);
  ASSERT_EQ(documents.size(), 1U);
  EXPECT_EQ(tokenizer_->decode(documents[0], false), "<|im_start|>user\nHi<|im_end|>\n");
}

TEST_F(CalibrationTest, RenderedTextsHaveNoSecondBeginningToken) {
  folder_.write("tokenizer_config.json", json{{"bos_token", "<s>"}}.dump());
  folder_.write("chat_template.jinja", "{{ bos_token }}{{ messages[0].content }}");
  const auto documents = read_documents(file("a.jsonl", R"({"messages": [{"role": "user", "content": "Hi"}]})"));
  ASSERT_EQ(documents.size(), 1U);
  EXPECT_EQ(documents[0], tokenizer_->encode("<s>Hi", false));
}

TEST_F(CalibrationTest, ATemplateIsGivenAllKeysOfALine) {
  folder_.write("chat_template.jinja", "{{ messages | tojson }}{{ tools }}{{ documents | length }}{{ thinks }}");
  const std::string message = R"({"role": "user", "name": "B", "content": [{"type": "text", "text": "Hi"}]})";
  const auto documents =
      read_documents(file("a.jsonl", "{\"messages\": [" + message + R"(], "tools": [{"b": 1, "a": 2}], )" +
                                         R"("documents": [{}], "chat_template_kwargs": {"thinks": true}})"));
  ASSERT_EQ(documents.size(), 1U);
  EXPECT_EQ(tokenizer_->decode(documents[0], false), "[" + message + "][{'b': 1, 'a': 2}]1True");
}

TEST_F(CalibrationTest, SaysWhyMessagesCannotBeRendered) {
  auto user = R"({"messages": [{"role": "user", "content": "Hi"}]})";
  expect_in(error_of(file("a.jsonl", user)), {"chat template", "render the messages to text first"});
  folder_.write("chat_template.jinja", "{{ messages[0]['content'] | wordwrap }}");
  const auto source = file("a.jsonl", user);
  EXPECT_THROW(read_documents(source), UnsupportedError);
  expect_in(error_of(source),
            {"a.jsonl, line 1", "chat_template.jinja, line 1", "wordwrap", "render the messages to text first"});
  folder_.write("chat_template.jinja", "{{ messages[0].content + 'a' }}{{ raise_exception('No.') if tools }}");
  expect_in(error_of(file("a.jsonl", R"({"messages": []})")), {"line 1", "at least one message"});
  expect_in(error_of(file("a.jsonl", R"({"messages": ["Hi"]})")), {"line 1", "an object with \"role\""});
  expect_in(error_of(file("a.jsonl", R"({"messages": [{"role": "user", "content": [{"type": "image"}]}]})")),
            {"line 1", "list", "str"});
  expect_in(error_of(file("a.jsonl", R"({"messages": [{"role": "user", "content": "x"}], "tools": [{}]})")),
            {"line 1", "No."});
  expect_in(error_of(file("a.jsonl", R"({"messages": [{"role": "user", "content": "x"}], "tools": "x"})")),
            {"line 1", "\"tools\""});
}

}  // namespace
}  // namespace gptq
