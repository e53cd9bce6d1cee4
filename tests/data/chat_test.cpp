// Chats rendered natively, compared with transformers' output for the same templates.
#include "data/chat.h"

#include <filesystem>
#include <fstream>
#include <functional>
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

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no error";
}

void expect_in(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts) EXPECT_NE(message.find(part), message.npos) << part << " in: " << message;
}

Json user(const std::string& content) { return Json::array({{{"role", "user"}, {"content", content}}}); }

TEST(ChatTest, RendersAsTransformersDoes) {
  TemporaryFolder folder;
  const Json all = Json::parse(std::ifstream(std::filesystem::path(GPTQ_GOLDEN) / "tokenizers/chats.json"));
  int compared = 0;
  for (const auto& [name, golden] : all.items()) {
    ChatTemplate chat = chat_template(folder, golden.at("template"));
    for (const Json& pair : golden.at("rendered")) {
      EXPECT_EQ(chat.render({.messages = pair.at(0)}), pair.at(1).get<std::string>()) << name;
      ++compared;
    }
  }
  EXPECT_GE(compared, 30);
}

TEST(ChatTest, RefusesATemplateThatIsNone) {
  TemporaryFolder folder;
  const std::string error = error_of([&] { chat_template(folder, "a\n{% for message in %}{% endfor %}"); });
  expect_in(error, {"tokenizer_config.json", "line 2", "an expression", "render the messages to text first"});
  EXPECT_THROW(chat_template(folder, "{% import 'x' as y %}"), UnsupportedError);
  EXPECT_THROW(chat_template(folder, ""), InputError);
}

TEST(ChatTest, SaysWhatATemplateRefusesAndWhere) {
  TemporaryFolder folder;
  ChatTemplate chat = chat_template(folder, "\n{{ raise_exception('Roles must alternate: ' ~ messages[0].role) }}");
  expect_in(error_of([&] { chat.render({.messages = user("a")}); }),
            {"tokenizer_config.json", "line 2", "it refuses the chat", "Roles must alternate: user"});
  ChatTemplate wrong = chat_template(folder, "{{ messages[0].nothing.more }}");
  expect_in(error_of([&] { wrong.render({.messages = user("a")}); }), {"line 1", "\"nothing\""});
  ChatTemplate unsupported = chat_template(folder, "{% if tools %}{{ 'a' | wordwrap }}{% endif %}x");
  EXPECT_EQ(unsupported.render({.messages = user("a")}), "x");
  const Json tools = Json::array({{{"name", "f"}}});
  EXPECT_THROW(unsupported.render({.messages = user("a"), .tools = tools}), UnsupportedError);
  expect_in(error_of([&] { unsupported.render({.messages = user("a"), .tools = tools}); }),
            {"the filter wordwrap", "render the messages to text first"});
}

TEST(ChatTest, MessagesAreObjects) {
  TemporaryFolder folder;
  ChatTemplate chat = chat_template(folder, "{{ messages | length }}");
  for (const Json& wrong : {Json(), Json("a"), Json::array(), Json::array({"a"}), Json::object()})
    expect_in(error_of([&] { chat.render({.messages = wrong}); }), {"message"});
  for (const Json& wrong : {Json("a"), Json::array({1}), Json::object({{"a", 1}})}) {
    expect_in(error_of([&] { chat.render({.messages = user("a"), .tools = wrong}); }), {"\"tools\""});
    expect_in(error_of([&] { chat.render({.messages = user("a"), .documents = wrong}); }), {"\"documents\""});
  }
  expect_in(error_of([&] { chat.render({.messages = user("a"), .variables = Json::array()}); }),
            {"chat_template_kwargs"});
}

TEST(ChatTest, KeysKeepTheirOrderAndNullOnesAreDropped) {
  TemporaryFolder folder;
  ChatTemplate chat = chat_template(folder, "{{ messages | tojson }}{{ tools }}{{ more }}{{ add_generation_prompt }}");
  const Json messages = Json::parse(R"([{"z": 1, "role": "user", "content": null, "a": [null]}])");
  EXPECT_EQ(chat.render({.messages = messages, .variables = {{"more", 5}}}),
            R"([{"z": 1, "role": "user", "a": [null]}]None5False)");
}

TEST(ChatTest, ThoughtsAreGivenUnderBothNames) {
  TemporaryFolder folder;
  ChatTemplate chat = chat_template(folder, "{{ messages[0] }}");
  for (const char* key : {"thinking", "reasoning_content", "reasoning"}) {
    const Json message = {{"role", "assistant"}, {key, "hm"}};
    const std::string text = chat.render({.messages = Json::array({message})});
    expect_in(text, {"'thinking': 'hm'", "'reasoning_content': 'hm'"});
  }
}

TEST(ChatTest, SpecialTokensAreVariables) {
  TemporaryFolder folder;
  folder.write("special_tokens_map.json", R"({"eos_token": "<e>", "pad_token": {"content": "<p>"}})");
  folder.write("chat_template.jinja", "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ image_token }}{{ unk_token }}|");
  json config = {{"bos_token", {{"content", "<b>"}}},
                 {"eos_token", "<old>"},
                 {"add_bos_token", true},
                 {"extra_special_tokens", {{"image_token", "<i>"}}}};
  folder.write("tokenizer_config.json", config.dump());
  EXPECT_EQ(ChatTemplate(folder.path()).render({.messages = user("a")}), "<b><e><p><i>|");
  config["added_tokens_decoder"] = json::object();
  folder.write("tokenizer_config.json", config.dump());
  EXPECT_EQ(ChatTemplate(folder.path()).render({.messages = user("a")}), "<b><old><i>|");
}

TEST(ChatTest, TakesTheTemplateThatTransformersTakes) {
  TemporaryFolder folder;
  const auto render = [&](bool with_tools) {
    const Json tools = with_tools ? Json::array({{{"name", "f"}}}) : Json();
    return ChatTemplate(folder.path()).render({.messages = user("a"), .tools = tools});
  };
  folder.write("chat_template.json", json{{"chat_template", "processor"}}.dump());
  EXPECT_EQ(render(true), "processor");
  const json named = {{{"name", "tool_use"}, {"template", "named tools"}},
                      {{"name", "default"}, {"template", "named"}}};
  folder.write("tokenizer_config.json", json{{"chat_template", named}}.dump());
  EXPECT_EQ(render(false), "named");
  EXPECT_EQ(render(true), "named tools");
  folder.write("chat_template.jinja", "file");
  EXPECT_EQ(render(true), "file");
  std::filesystem::create_directory(folder.path() / "additional_chat_templates");
  folder.write("additional_chat_templates/tool_use.jinja", "file tools");
  EXPECT_EQ(render(false), "file");
  EXPECT_EQ(render(true), "file tools");
}

TEST(ChatTest, TheDateIsFixed) {
  TemporaryFolder folder;
  folder.write("chat_template.jinja", "{{ strftime_now('%d %b %Y') }}");
  EXPECT_EQ(ChatTemplate(folder.path()).render({.messages = user("a")}), "26 Jul 2024");
  EXPECT_EQ(ChatTemplate(folder.path(), {.year = 2026, .month = 2, .day = 3}).render({.messages = user("a")}),
            "03 Feb 2026");
}

}  // namespace
}  // namespace gptq
