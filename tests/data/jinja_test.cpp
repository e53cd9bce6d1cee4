// The language of chat templates, compared with jinja2's answers, and real templates with those of transformers.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/jinja/template.h"

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

// Templates of published models, which are not part of the sources: only parsed here. Their answers are compared by
// tools/compare_chat_templates.py.
TEST(JinjaTemplateTest, ParsesTemplatesOfPublishedModels) {
  const auto folder = std::filesystem::path(GPTQ_SOURCE).parent_path() / "shared/data/chat-templates";
  if (!std::filesystem::is_directory(folder)) GTEST_SKIP() << "no templates in " << folder;
  int parsed = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    std::ifstream stream(file.path(), std::ios::binary);
    const std::string source{std::istreambuf_iterator<char>(stream), {}};
    EXPECT_NO_THROW(Template{source}) << file.path();
    ++parsed;
  }
  EXPECT_GE(parsed, 50);
}

}  // namespace
}  // namespace gptq::jinja
