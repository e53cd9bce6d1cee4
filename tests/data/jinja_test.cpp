// The language of chat templates, compared with jinja2's answers, and real templates with those of transformers.
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/chat.h"
#include "data/jinja/template.h"
#include "temporary_folder.h"

namespace gptq::jinja {
namespace {

Json golden() { return Json::parse(std::ifstream(std::filesystem::path(GPTQ_GOLDEN) / "jinja/language.json")); }

class JinjaTest : public testing::TestWithParam<std::string> {};

TEST_P(JinjaTest, AnswersAsJinja2) {
  const Json all = golden();
  for (const Json& pair : all.at("groups").at(GetParam())) {
    const std::string source = pair.at(0);
    const auto render = [&] { return Template(source).render(all.at("variables"), {}); };
    if (pair.at(1).is_null()) {
      EXPECT_THROW(render(), InputError) << source;
    } else {
      EXPECT_NO_THROW(EXPECT_EQ(render(), pair.at(1).get<std::string>()) << source) << source;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Groups, JinjaTest,
                         testing::Values("white space", "literals", "operators", "access", "statements", "macros",
                                         "filters", "tests", "methods", "globals"),
                         [](const auto& group) {
                           std::string name = group.param;
                           std::erase(name, ' ');
                           return name;
                         });

TEST(JinjaTemplateTest, EveryGroupOfAnswersIsCompared) {
  const Json all = golden();
  EXPECT_EQ(all.at("groups").size(), 10U);
  size_t cases = 0;
  for (const Json& group : all.at("groups")) cases += group.size();
  EXPECT_GE(cases, 400U);
}

// FNV-1a, as make.py has it.
std::string digest(const std::string& text) {
  uint64_t value = 0xcbf29ce484222325;
  for (const char byte : text) value = (value ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  std::array<char, 17> digits{};
  std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(value));
  return digits.data();
}

// Templates of published models are not part of the sources, only the digests of what transformers makes of them.
TEST(JinjaTemplateTest, PublishedTemplatesAnswerAsInTransformers) {
  const auto templates = std::filesystem::path(GPTQ_SOURCE).parent_path() / "shared/data/chat-templates";
  if (!std::filesystem::is_directory(templates)) GTEST_SKIP() << "NOT TESTED: there are no templates in " << templates;
  const Json all = Json::parse(std::ifstream(std::filesystem::path(GPTQ_GOLDEN) / "jinja/published.json"));
  TemporaryFolder folder;
  folder.write("tokenizer_config.json", all.at("tokens").dump());
  int compared = 0;
  for (const auto& [name, expected] : all.at("templates").items()) {
    std::ifstream stream(templates / name, std::ios::binary);
    const std::string source{std::istreambuf_iterator<char>(stream), {}};
    if (digest(source) != expected.at("source").get<std::string>()) continue;  // another version of it, or none
    folder.write("chat_template.jinja", source);
    ChatTemplate chat(folder.path());
    for (size_t i = 0; i < all.at("chats").size(); ++i) {
      const Json given = all.at("chats").at(i), answer = expected.at("texts").at(i);
      const auto render = [&] {
        return chat.render({.messages = given.at("messages"),
                            .tools = given.value("tools", Json()),
                            .variables = given.value("chat_template_kwargs", Json())});
      };
      if (answer.is_null()) {
        EXPECT_THROW(render(), InputError) << name << ", chat " << i;
      } else {
        EXPECT_NO_THROW(EXPECT_EQ(digest(render()), answer.get<std::string>()) << name << ", chat " << i) << name;
      }
      ++compared;
    }
  }
  EXPECT_GE(compared, 500) << "the templates in " << templates << " are others than those of published.json";
}

}  // namespace
}  // namespace gptq::jinja
