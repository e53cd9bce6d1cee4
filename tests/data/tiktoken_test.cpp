// Vocabularies of tiktoken and tekken.json, and tokens that only tokenizer_config.json names, compared with golden
// answers of tiktoken, mistral-common and transformers; and broken files of each.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/tokenizer.h"
#include "temporary_folder.h"

namespace gptq {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

const fs::path kGolden = fs::path(GPTQ_GOLDEN) / "tokenizers";

std::string contents(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::string error_of(const TemporaryFolder& folder) {
  try {
    const Tokenizer tokenizer(folder.path());
    tokenizer.encode("some text");
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

void expect_in(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(message.find(part), std::string::npos) << part << " in: " << message;
}

class TiktokenFolders : public ::testing::TestWithParam<const char*> {};

TEST_P(TiktokenFolders, EqualGoldenAnswers) {
  const fs::path folder = kGolden / GetParam();
  const Tokenizer tokenizer(folder);
  const json answers = json::parse(contents(folder / "answers.json"));
  ASSERT_GT(answers.size(), 70U);
  for (const json& answer : answers) {
    SCOPED_TRACE(answer.at("text").dump());
    EXPECT_EQ(tokenizer.encode(answer.at("text").get<std::string>()), answer.at("ids").get<std::vector<int32_t>>());
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizer, TiktokenFolders,
                         ::testing::Values("kimi", "qwen1", "glm4", "llama3", "tekken", "config-tokens"));

TEST(Tiktoken, DecodesWhatItEncodes) {
  for (const char* name : {"kimi", "glm4", "tekken"}) {
    const Tokenizer tokenizer(kGolden / name);
    const std::string text = "It's \u6f22\u5b57 and \U0001F600 12345\n\n x";
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, false)), text) << name;
  }
}

TEST(Tiktoken, SpecialTokensKeepTheirIds) {
  EXPECT_EQ(Tokenizer(kGolden / "kimi").token_id("<|im_start|>"), 617);
  EXPECT_EQ(Tokenizer(kGolden / "kimi").token_id("<|reserved_token_618|>"), 618);
  EXPECT_EQ(Tokenizer(kGolden / "qwen1").token_id("<|extra_204|>"), 807);
  EXPECT_EQ(Tokenizer(kGolden / "tekken").token_id("[INST]"), 3);
  EXPECT_EQ(Tokenizer(kGolden / "tekken").token_id("<SPECIAL_19>"), 19);
}

TEST(Tiktoken, ATextNamedTokenizerModelIsNoBrokenSentencePiece) {
  const TemporaryFolder folder;
  folder.write("tokenizer.model", "IQ== 0\nIg== 1\nIw== 2\n");
  const std::string message = error_of(folder);
  expect_in(message, {"tokenizer.model", "tiktoken", "256 bytes", "3 of them", "input_ids"});
  EXPECT_EQ(message.find("broken"), std::string::npos) << message;
}

TEST(Tiktoken, ClassesOfOtherRepositoriesAreRefused) {
  const TemporaryFolder folder;
  folder.write("tokenizer.model", contents(kGolden / "glm4/tokenizer.model"));
  folder.write("tokenizer_config.json",
               R"({"tokenizer_class": "OtherTokenizer", "auto_map": {"AutoTokenizer": ["x.OtherTokenizer", null]}})");
  expect_in(error_of(folder), {"tokenizer.model", "\"OtherTokenizer\"", "TikTokenTokenizer", "tokenizer.json"});
}

TEST(Tiktoken, NamesTheLineThatIsWrong) {
  const TemporaryFolder folder;
  const std::string sound = contents(kGolden / "kimi/tiktoken.model");
  for (const auto& [line, what] :
       std::vector<std::pair<std::string, std::string>>{{"YWI=\n", "a token in base64"},
                                                        {"YWI= x\n", "a token in base64"},
                                                        {"YWI= -1\n", "a token in base64"},
                                                        {"Y!I= 700\n", "not a text in base64"},
                                                        {"YQ== 700\n", "there twice"}}) {
    folder.write("tiktoken.model", sound + line);
    expect_in(error_of(folder), {"tiktoken.model", "line 601", what});
  }
  folder.write("tiktoken.model", sound + std::string(2000, 'A') + " 700\n");
  expect_in(error_of(folder), {"line 601", "more than 512 bytes"});
}

TEST(Tekken, NamesWhatIsMissing) {
  const TemporaryFolder folder;
  const json sound = json::parse(contents(kGolden / "tekken/tekken.json"));
  const auto broken = [&](const char* path, const json& value) {
    json tekken = sound;
    tekken[json::json_pointer(path)] = value;
    folder.write("tekken.json", tekken.dump());
    return error_of(folder);
  };
  expect_in(broken("/config", json::object()), {"tekken.json", "no \"default_num_special_tokens\""});
  expect_in(broken("/config/default_vocab_size", -1), {"\"default_vocab_size\" is not a number of tokens"});
  expect_in(broken("/config/default_vocab_size", 3), {"3 tokens", "20 special"});
  expect_in(broken("/config/default_vocab_size", 100), {"256 bytes", "80 of them"});
  expect_in(broken("/config/pattern", 3), {"\"pattern\" is 3"});
  expect_in(broken("/vocab/7/token_bytes", "!"), {"the token 7", "base64"});
  expect_in(broken("/special_tokens/1/token_str", "x"), {"no token \"<s>\""});
  expect_in(broken("/special_tokens/1/rank", 70), {"the id 70 of 20"});
  expect_in(broken("/vocab", nullptr), {"tekken.json", "0 of them"});
}

TEST(Tiktoken, OnlyEverRaisesErrorsOfItsOwnOnMutatedFiles) {
  std::mt19937 random(3);
  for (const auto& [name, file] :
       {std::pair("kimi", "tiktoken.model"), std::pair("kimi", "tokenizer_config.json"),
        std::pair("tekken", "tekken.json"), std::pair("config-tokens", "tokenizer_config.json")}) {
    const TemporaryFolder folder;
    for (const auto& entry : fs::directory_iterator(kGolden / name))
      folder.write(entry.path().filename().string(), contents(entry.path()));
    const std::string whole = contents(kGolden / name / file);
    for (int i = 0; i < 100; ++i) {
      std::string broken = whole;
      if (i % 2 == 0) broken.resize(random() % whole.size());
      for (int change = 0; change < 3 && !broken.empty(); ++change)
        broken[random() % broken.size()] = static_cast<char>(' ' + random() % 95);
      folder.write(file, broken);
      error_of(folder);
    }
  }
}

}  // namespace
}  // namespace gptq
