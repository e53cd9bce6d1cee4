// gptq generate and gptq chat.
#include "cli.h"

namespace gptq {
namespace {

const fs::path kDemo = fs::path(GPTQ_SOURCE) / "demo" / "model";

class GenerationCli : public Cli {
 protected:
  Outcome generate(const std::vector<std::string>& more, const fs::path& model = kDemo) const {
    std::vector<std::string> arguments = {"generate", model, "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments);
  }
  Outcome chat(const std::vector<std::string>& more, const std::string& typed, const fs::path& model) const {
    write_file(folder_ / "typed.txt", typed);
    std::vector<std::string> arguments = {"chat", model, "--threads", "1", "--tokens", "8"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run(arguments, {}, folder_ / "typed.txt");
  }
  // The demo model, with a template for chats.
  fs::path chatting() const {
    fs::copy(kDemo, folder_ / "chatting");
    write_file(folder_ / "chatting" / "chat_template.jinja",
               "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
               "{% if add_generation_prompt %}Once upon a time{% endif %}");
    return folder_ / "chatting";
  }
};

TEST_F(GenerationCli, WritesTheNewTextAlone) {
  const Outcome outcome = generate({"--prompt", "Once upon a time, there was", "--tokens", "12"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_FALSE(outcome.out.empty());
  EXPECT_EQ(outcome.out.find("Once upon"), std::string::npos);
  EXPECT_NE(outcome.err.find("tokens/s"), std::string::npos);
  const Outcome quiet = generate({"--prompt", "Once upon a time, there was", "--tokens", "12", "--quiet"});
  EXPECT_EQ(quiet.out, outcome.out);
  EXPECT_EQ(quiet.err, "");
  const Json json =
      Json::parse(generate({"--prompt", "Once upon a time, there was", "--tokens", "12", "--json", "--quiet"}).out);
  EXPECT_EQ(json.at("text"), outcome.out);
  EXPECT_EQ(json.at("end"), "tokens");
  EXPECT_EQ(json.at("tokens"), 12);
  EXPECT_GT(json.at("tokens_per_second").get<double>(), 0);
}

TEST_F(GenerationCli, EndsAtAStopTextAndAtTheEndOfText) {
  const std::string text = generate({"--prompt", "Once upon a time, there was", "--tokens", "30"}).out;
  ASSERT_GT(text.size(), 12U);
  const std::string stop = text.substr(8, 3);
  const Outcome stopped = generate({"--prompt", "Once upon a time, there was", "--tokens", "30", "--stop", stop});
  EXPECT_EQ(stopped.out, text.substr(0, text.find(stop)));
  // Any token may be the last one, by either file.
  for (const char* file : {"config.json", "generation_config.json"}) {
    fs::copy(kDemo, folder_ / file);
    Json config = Json::parse(read_file(folder_ / file / file)), ends = Json::array();
    for (int id = 0; id < 2048; ++id) ends.push_back(id);
    config["eos_token_id"] = ends;
    write_file(folder_ / file / file, config.dump());
    const Outcome ended = generate({"--prompt", "Once", "--json", "--quiet"}, folder_ / file);
    const Json json = Json::parse(ended.out);
    EXPECT_EQ(json.at("end"), "eos");
    EXPECT_EQ(json.at("text"), "");
  }
}

TEST_F(GenerationCli, WritesTheSameTextWithTheSameSeed) {
  const auto with_seed = [&](const std::string& seed) {
    return generate({"--prompt", "Once", "--tokens", "20", "--temperature", "1.5", "--top-p", "0.95", "--top-k", "200",
                     "--seed", seed})
        .out;
  };
  EXPECT_EQ(with_seed("7"), with_seed("7"));
  EXPECT_NE(with_seed("7"), with_seed("8"));
}

TEST_F(GenerationCli, FlagsThatMeanNothingAreRefused) {
  std::string words;
  for (int i = 0; i < 600; ++i) words += " fox";
  for (const auto& [flags, said] : std::vector<std::pair<std::vector<std::string>, std::vector<std::string>>>{
           {{}, {"--prompt"}},
           {{"--prompt", ""}, {"--prompt is empty"}},
           {{"--prompt", words}, {"--prompt has", "tokens", "positions", "shorten"}},
           {{"--prompt", "a", "--tokens", "0"}, {"--tokens 0: give a positive number"}},
           {{"--prompt", "a", "--tokens", "-4"}, {"--tokens -4"}},
           {{"--prompt", "a", "--tokens", "many"}, {"--tokens"}},
           {{"--prompt", "a", "--temperature", "-1"}, {"--temperature -1"}},
           {{"--prompt", "a", "--temperature", "nan"}, {"--temperature"}},
           {{"--prompt", "a", "--top-p", "2"}, {"--top-p 2", "probability"}},
           {{"--prompt", "a", "--top-p", "0"}, {"--top-p 0"}},
           {{"--prompt", "a", "--top-k", "-1"}, {"--top-k -1"}},
           {{"--prompt", "a", "--stop", ""}, {"--stop is an empty text"}},
           {{"--prompt", "a", "--device", "tpu:0"}, {"--device-map 'tpu:0'"}},
           {{"--prompt", "a", "--precision", "int7"}, {"--precision", "int7"}}})
    expect_refusal(generate(flags), said);
  expect_refusal(generate({"--prompt", "a"}, folder_ / "nowhere"), {"nowhere"});
  expect_refusal(generate({"--prompt", "a"}, folder_ / "model"), {"tokenizer.json", "missing"});
  expect_refusal(generate({"--prompt", "\xff"}), {"UTF-8"});
}

TEST_F(GenerationCli, ChatsByTheTemplate) {
  const fs::path model = chatting();
  const Outcome outcome = chat({}, "Hello\n\nTell me more\n", model);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 2) << outcome.out;
  const std::string first = outcome.out.substr(0, outcome.out.find('\n'));
  EXPECT_EQ(first, generate({"--prompt", "user: Hello\nOnce upon a time", "--tokens", "8"}, model).out);
  const std::string turns = "user: Hello\nassistant: " + first + "\nuser: Tell me more\nOnce upon a time";
  EXPECT_EQ(outcome.out.substr(first.size() + 1), generate({"--prompt", turns, "--tokens", "8"}, model).out + "\n");
  const Outcome told = chat({"--system", "Be a fox"}, "Hello\n", model);
  EXPECT_EQ(
      told.out,
      generate({"--prompt", "system: Be a fox\nuser: Hello\nOnce upon a time", "--tokens", "8"}, model).out + "\n");
}

TEST_F(GenerationCli, AChatNeedsATemplate) {
  expect_refusal(chat({}, "Hello\n", kDemo), {"chat template", "chat_template.jinja", "--prompt"});
}

}  // namespace
}  // namespace gptq
