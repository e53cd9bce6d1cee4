// Files of records: every shape and container that data sets come in, and what is said of those that are unknown.
#include <chrono>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <zlib.h>

#include "base/error.h"
#include "data/calibration.h"
#include "temporary_folder.h"

namespace gptq {
namespace {

using nlohmann::json;

// In gzip's format.
std::string packed(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string bytes(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(bytes.data());
  stream.avail_out = static_cast<uInt>(bytes.size());
  deflate(&stream, Z_FINISH);
  bytes.resize(stream.total_out);
  deflateEnd(&stream);
  return bytes;
}

class RecordsTest : public ::testing::Test {
 protected:
  // One token per ASCII character, its code.
  RecordsTest() {
    json vocabulary = json::object();
    for (int c = 0; c < 128; ++c) vocabulary[std::string(1, static_cast<char>(c))] = c;
    const json model = {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", json::array()}};
    folder_.write("tokenizer.json", json{{"model", model}, {"decoder", {{"type", "Fuse"}}}}.dump());
    tokenizer_.emplace(folder_.path());
  }

  TextSource source(const std::string& name, const std::string& content, const std::string& key = "") {
    return {.file = folder_.write(name, content),
            .tokenizer = [this]() -> const Tokenizer& { return *tokenizer_; },
            .key = key};
  }
  // The documents, decoded.
  std::vector<std::string> texts(const std::string& name, const std::string& content, const std::string& key = "") {
    std::vector<std::string> decoded;
    for (const TokenSequence& ids : read_documents(source(name, content, key)))
      decoded.push_back(tokenizer_->decode(ids, false));
    return decoded;
  }
  std::string error_of(const std::string& name, const std::string& content, const std::string& key = "") {
    try {
      read_documents(source(name, content, key));
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }
  void expect_error(const std::string& message, const std::vector<std::string>& parts) {
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
    EXPECT_EQ(message.find("json.exception"), std::string::npos) << message;
    EXPECT_LT(message.size(), 1000U);
  }

  TemporaryFolder folder_;
  std::optional<Tokenizer> tokenizer_;
};

using Texts = std::vector<std::string>;
using Ids = std::vector<TokenSequence>;

TEST_F(RecordsTest, ReadsArraysOfTextsObjectsAndIds) {
  EXPECT_EQ(texts("a.json", R"(["ab", "c"])"), (Texts{"ab", "c"}));
  EXPECT_EQ(texts("a.json", "[\n  {\n    \"text\": \"a]b\\\"\"\n  },\n  {\"text\": \"c\"}\n]\n"),
            (Texts{"a]b\"", "c"}));
  EXPECT_EQ(texts("a.json", R"([{"text": "ab"}, {"text": "c"}])"), (Texts{"ab", "c"}));
  EXPECT_EQ(read_documents(source("a.json", "[[1, 2], [3]]")), (Ids{{1, 2}, {3}}));
  EXPECT_EQ(read_documents(source("a.json", "[\n 1,\n 2\n]")), (Ids{{1, 2}}));
  EXPECT_EQ(read_documents(source("a.json", "[1, 2]\n[3]\n")), (Ids{{1, 2}, {3}}));
  EXPECT_EQ(texts("a.jsonl", "\"ab\"\n\"c\"\n"), (Texts{"ab", "c"}));
  EXPECT_EQ(texts("a.json", "\xef\xbb\xbf{\n\"text\": \"ab\"\n}\n{\n\"text\": \"c\"\n}"), (Texts{"ab", "c"}));
}

TEST_F(RecordsTest, TakesABatchOfOneAsItsRow) {
  EXPECT_EQ(read_documents(source("a.jsonl", R"({"input_ids": [[1, 2]], "attention_mask": [[1, 1]]})")), (Ids{{1, 2}}));
  expect_error(error_of("a.jsonl", R"({"input_ids": [[1], [2]]})"), {"line 1", "2 arrays", "record of its own"});
}

TEST_F(RecordsTest, ReadsColumnsOfTables) {
  EXPECT_EQ(texts("a.csv", "id,text\r\n0,\"a,\"\"b\"\"\nc\"\r\n\r\n1,d\r\n"), (Texts{"a,\"b\"\nc", "d"}));
  EXPECT_EQ(texts("a.tsv", "body\tid\nab\t1\nc\t2", "body"), (Texts{"ab", "c"}));
  EXPECT_EQ(texts("a.csv", "question,answer\nq,a\n"), (Texts{"### Instruction:\nq\n\n### Response:\na"}));
  expect_error(error_of("a.csv", "id,body\n0,ab\n"), {"a.csv, row 2", "\"body\", \"id\"", "`calibration_key`"});
  expect_error(error_of("a.csv", "id,text\n0,ab,c\n"), {"row 2", "3 fields", "2 names"});
  expect_error(error_of("a.csv", "id,text\n0,\"ab\n"), {"row 2", "quote without an end"});
  expect_error(error_of("a.csv", "id,text\n0,\"a\"b\n"), {"row 2", "closing quote"});
  expect_error(error_of("a.csv", "text,text\n0,1\n"), {"row 1", "two columns"});
  expect_error(error_of("a.csv", "text\n"), {"a.csv", "no records"});
}

TEST_F(RecordsTest, UnpacksGzip) {
  EXPECT_EQ(texts("a.jsonl.gz", packed("{\"text\": \"ab\"}\n") + packed("{\"text\": \"c\"}\n")), (Texts{"ab", "c"}));
  EXPECT_EQ(texts("a.txt.gz", packed("ab")), (Texts{"ab"}));
  EXPECT_EQ(texts("a.csv.GZ", packed("text\nab\n")), (Texts{"ab"}));
  const std::string whole = packed("some text that is packed");
  expect_error(error_of("a.txt.gz", whole.substr(0, whole.size() - 9)), {"a.txt.gz", "ends in the middle"});
  std::string broken = whole;
  broken[14] = '\xff', broken[15] = '\xff';
  expect_error(error_of("a.txt.gz", broken), {"a.txt.gz", "broken gzip data"});
  expect_error(error_of("a.txt.gz", whole + "x"), {"other data after"});
  EXPECT_EQ(texts("a.txt.gz", whole + std::string(3, '\0')), (Texts{"some text that is packed"}));
}

TEST_F(RecordsTest, StopsAtAGzipThatWouldFillTheMemory) {
  std::string bomb;
  const std::string part = packed(std::string(size_t{32} << 20, 'a'));
  for (int i = 0; i < 40; ++i) bomb += part;  // a gigabyte in one megabyte
  const TextSource file = source("a.txt.gz", bomb);
  const std::clock_t before = std::clock();
  EXPECT_THROW(read_documents(file), InputError);
  EXPECT_LT(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC, 2.0);
}

TEST_F(RecordsTest, RendersShareGptAsAChat) {
  folder_.write("chat_template.jinja", "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}");
  const std::string turns = R"([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}])";
  EXPECT_EQ(texts("a.jsonl", "{\"conversations\": " + turns + "}"), (Texts{"user:q;assistant:a;"}));
  EXPECT_EQ(texts("a.jsonl", "{\"system\": \"s\", \"chat\": " + turns + "}", "chat"),
            (Texts{"system:s;user:q;assistant:a;"}));
  EXPECT_EQ(texts("a.jsonl", R"({"conversations": [{"role": "user", "content": "q"}]})"), (Texts{"user:q;"}));
  expect_error(error_of("a.jsonl", R"({"conversations": [{"from": "narrator", "value": "x"}]})"),
               {"line 1", "\"narrator\"", "human, gpt"});
  expect_error(error_of("a.jsonl", R"({"conversations": "x"})"), {"line 1", "not an array of at least one message"});
}

TEST_F(RecordsTest, ReadsQuestionsWithTheirAnswers) {
  const std::string alpaca =
      R"([{"instruction": "q", "input": "x", "output": "a"}, {"instruction": "q", "output": "a"}])";
  EXPECT_EQ(texts("a.json", alpaca), (Texts{"### Instruction:\nq\n\n### Input:\nx\n\n### Response:\na",
                                            "### Instruction:\nq\n\n### Response:\na"}));
  folder_.write("chat_template.jinja", "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}");
  EXPECT_EQ(texts("a.json", alpaca), (Texts{"user:q\nx;assistant:a;", "user:q;assistant:a;"}));
  EXPECT_EQ(texts("a.jsonl", R"({"prompt": "q", "response": "a"})"), (Texts{"user:q;assistant:a;"}));
  EXPECT_EQ(texts("a.jsonl", R"({"question": "q", "answer": "a"})"), (Texts{"user:q;assistant:a;"}));
  EXPECT_EQ(texts("a.jsonl", R"({"prompt": "q ", "completion": "a"})"), (Texts{"q a"}));
  EXPECT_EQ(texts("a.jsonl", R"({"prompt": [{"role": "user", "content": "q"}],
                               "completion": [{"role": "assistant", "content": "a"}]})"
                             "\n"),
            (Texts{"user:q;assistant:a;"}));
  expect_error(error_of("a.jsonl", R"({"prompt": "q", "completion": 1})"), {"line 1", "\"completion\" is number"});
}

TEST_F(RecordsTest, TheKeyThatIsNamedDecides) {
  EXPECT_EQ(texts("a.jsonl", R"({"content": "ab", "text": "no"})", "content"), (Texts{"ab"}));
  EXPECT_EQ(read_documents(source("a.jsonl", R"({"tokens": [1, 2]})", "tokens")), (Ids{{1, 2}}));
  expect_error(error_of("a.jsonl", R"({"content": "ab", "id": 1})"),
               {"line 1", "\"text\", \"messages\" and \"input_ids\"", "\"content\", \"id\"", "`calibration_key`"});
  expect_error(error_of("a.jsonl", R"({"content": "ab"})", "body"), {"no \"body\"", "\"content\""});
  expect_error(error_of("a.jsonl", R"({"content": 3})", "content"), {"\"content\" is number"});
}

TEST_F(RecordsTest, MessagesStayShort) {
  const std::string long_text(10'000'000, 'x');
  expect_error(error_of("a.json", "[{\"body\": \"" + long_text + "\"}]"), {"element 1", "\"body\""});
  expect_error(error_of("a.jsonl", "{\"text\": \"" + long_text), {"line 1", "broken JSON"});
  expect_error(error_of("a.jsonl", "{\"" + long_text + "\": 1}"), {"line 1", "xxx..."});
  expect_error(error_of("a.json", "[{\"text\": \"a\"}, {\"text\": "), {"element 2", "ends in the middle"});
  expect_error(error_of("a.json", "[{\"text\": \"a\"} {\"text\": \"b\"}]"), {"element 1", "comma"});
  expect_error(error_of("a.json", "[\n{\"text\": \"a\"}]\nx"), {"more text"});
  expect_error(error_of("a.json", "[{\"text\": \"a\"},]"), {"nothing where"});
}

TEST_F(RecordsTest, NamesOtherFormatsAndDataSets) {
  expect_error(error_of("a.parquet", std::string("PAR1\x15\x04\xff\xfe", 8)),
               {"a.parquet", "Parquet", "read_parquet", "a.jsonl"});
  expect_error(error_of("a.jsonl", std::string("\x28\xb5\x2f\xfd xyz", 8)), {"zstd"});
  const auto missing = [&](const std::string& name) {
    try {
      read_documents({.file = name, .tokenizer = {}});
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  expect_error(missing("wikitext2"), {"does not exist", "load_dataset('Salesforce/wikitext'", "wikitext2.jsonl"});
  expect_error(missing("c4"), {"allenai/c4"});
  expect_error(missing("ptb"), {"ptb_text_only", "\"sentence\""});
  expect_error(missing("HuggingFaceH4/ultrachat_200k"), {"load_dataset('HuggingFaceH4/ultrachat_200k'"});
  EXPECT_EQ(missing("texts/a.jsonl"), "the text file texts/a.jsonl does not exist");
}

// A file of more than 8 MiB of records with their number and 32 characters.
std::string large_file(size_t records) {
  std::string text;
  for (size_t i = 0; i < records; ++i) {
    std::string number = std::to_string(i);
    number.insert(0, 12 - number.size(), '0');
    text += "{\"text\": \"" + number + "................................\"}\n";
  }
  return text;
}

TEST_F(RecordsTest, ALargeFileGivesAWindowOfEachPart) {
  const std::string text = large_file(200'000);
  ASSERT_GT(text.size(), size_t{8} << 20);
  const TextSource file = source("a.jsonl", text + "no JSON, and not read\n");
  const auto drawn = [&](uint64_t seed) { return read_calibration(file, {4, 100, seed}); };
  const auto sequences = drawn(0);
  ASSERT_EQ(sequences.size(), 4U);
  for (size_t i = 0; i < 4; ++i) {
    ASSERT_EQ(sequences[i].size(), 100U);
    const int64_t first =
        std::stoll(tokenizer_->decode(std::vector<int32_t>(sequences[i].begin(), sequences[i].begin() + 12)));
    EXPECT_NEAR(static_cast<double>(first), 50'000.0 * static_cast<double>(i), 2);
  }
  EXPECT_EQ(drawn(7), drawn(7));
  EXPECT_NE(drawn(7), drawn(8));
  EXPECT_EQ(read_windows(file, 50, 3),
            read_windows(source("b.jsonl", text.substr(0, text.find('\n', 100'000))), 50, 3));
  // A part that is too short for a window: all is read, and the last line is found.
  EXPECT_THROW(read_calibration(file, {4, 2'500'000, 0}), InputError);
}

TEST_F(RecordsTest, OfALargeFileOfIdsTheSameRecordsAreTakenAsOfASmallOne) {
  std::string text;
  for (int i = 0; i < 400'000; ++i) text += "{\"input_ids\": [" + std::to_string(i) + ", 1, 2]}\n";
  ASSERT_GT(text.size(), size_t{8} << 20);
  EXPECT_EQ(read_calibration(source("a.jsonl", text), {2, 2, 0}), (Ids{{0, 1}, {1, 1}}));
  Ids ids;
  for (int i = 0; i < 400'000; ++i) ids.push_back({i, 1, 2});
  TextSource in_memory = source("a.jsonl", text);
  in_memory.ids = &ids;
  EXPECT_EQ(read_calibration(source("a.jsonl", text), {50, 3, 9}), read_calibration(in_memory, {50, 3, 9}));
  EXPECT_EQ(read_windows(source("a.jsonl", text), 2, 2), (Ids{{0, 1, 2}, {1, 1, 2}}));
}

}  // namespace
}  // namespace gptq
