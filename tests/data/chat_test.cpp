// Chats rendered natively, compared with transformers' output for the same templates.
#include "data/chat.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "temporary_folder.h"

namespace gptq {
namespace {

using nlohmann::json;

ChatTemplate chat_template(const TemporaryFolder& folder, const std::string& source) {
  json config = {{"bos_token", "<s>"}, {"eos_token", {{"content", "</s>"}}}, {"chat_template", source}};
  folder.write("tokenizer_config.json", config.dump());
  return ChatTemplate(folder.path());
}

TEST(ChatTest, RendersAsTransformersDoes) {
  TemporaryFolder folder;
  json all = json::parse(std::ifstream(std::filesystem::path(GPTQ_GOLDEN) / "tokenizers/chats.json"));
  int compared = 0;
  for (const auto& [name, golden] : all.items()) {
    ChatTemplate chat = chat_template(folder, golden.at("template"));
    for (const json& pair : golden.at("rendered")) {
      std::vector<ChatMessage> messages;
      for (const json& message : pair.at(0)) messages.push_back({message.at("role"), message.at("content")});
      EXPECT_EQ(chat.render(messages), pair.at(1).get<std::string>()) << name;
      ++compared;
    }
  }
  EXPECT_GE(compared, 30);
}

TEST(ChatTest, RefusesATemplateWhoseOutputItDoesNotKnow) {
  TemporaryFolder folder;
  const std::string message = "{{'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n'}}";
  EXPECT_NO_THROW(chat_template(folder, message));
  for (const std::string& source :
       {std::string("<|im_start|>"), "{{bos_token}}" + message, message + "{{ strftime_now('%Y') }}",
        message + "<think>",
        std::string("{{'<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>\\n'}}")})
    EXPECT_THROW(chat_template(folder, source), UnsupportedError) << source;
}

TEST(ChatTest, TakesTheDefaultOfSeveralNamedTemplates) {
  TemporaryFolder folder;
  std::string source = "{{'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n'}}";
  json config = {
      {"chat_template", {{{"name", "tool_use"}, {"template", "?"}}, {{"name", "default"}, {"template", source}}}}};
  folder.write("tokenizer_config.json", config.dump());
  std::vector<ChatMessage> messages = {{"user", "Hi"}};
  EXPECT_EQ(ChatTemplate(folder.path()).render(messages), "<|im_start|>user\nHi<|im_end|>\n");
}

TEST(ChatTest, RefusesTurnsThatTheTemplateRefuses) {
  TemporaryFolder folder;
  json all = json::parse(std::ifstream(std::filesystem::path(GPTQ_GOLDEN) / "tokenizers/chats.json"));
  ChatTemplate chat = chat_template(folder, all.at("Llama-2").at("template"));
  std::vector<ChatMessage> messages = {{"user", "a"}, {"user", "b"}};
  EXPECT_THROW(chat.render(messages), InputError);
}

}  // namespace
}  // namespace gptq
