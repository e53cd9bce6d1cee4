// gptq compare and gptq eval on several texts: table, JSON, CSV, and errors.
#include <algorithm>
#include <cmath>
#include <sstream>

#include <gtest/gtest.h>

#include "apps/cli.h"

namespace gptq {
namespace {

class CompareCli : public Cli {
 protected:
  void SetUp() override {
    Cli::SetUp();
    write_ids(folder_ / "b, \"quoted\".jsonl", 3, 24, 128, 2);
    ASSERT_EQ(run(quantize({"--quiet", "--bits", "3"})).code, 0);
    fs::rename(folder_ / "out", folder_ / "quantized");
  }
  // Compares on both texts, with `more` arguments.
  std::vector<std::string> compare(const std::string& quantized, std::vector<std::string> more = {}) const {
    std::vector<std::string> arguments{"compare",   "--text", first_,      "--text", second_,
                                       "--context", "32",     "--threads", "1",      folder_ / "model"};
    arguments.push_back(folder_ / quantized);
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  const std::string first_ = folder_ / "ids.jsonl", second_ = folder_ / "b, \"quoted\".jsonl";
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST_F(CompareCli, PrintsARowForEachText) {
  const Outcome outcome = run(compare("quantized"));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_GE(lines.size(), 3U) << outcome.out;
  for (const char* word : {"text", "perplexity", "quantized", "change", "mean KL", "99 % of KL", "same top", "tokens"})
    EXPECT_NE(lines[0].find(word), std::string::npos) << word << " is not in: " << lines[0];
  EXPECT_EQ(lines[1].find(first_), 0U);
  EXPECT_EQ(lines[2].find(second_), 0U);
  EXPECT_EQ(lines[1].size(), lines[0].size()) << "columns stand below their names:\n" << outcome.out;
  EXPECT_EQ(lines[1].substr(lines[1].rfind(' ') + 1), "248");
  EXPECT_EQ(lines[2].substr(lines[2].rfind(' ') + 1), "69");
  EXPECT_NE(outcome.err.find("text 2 of 2"), std::string::npos) << outcome.err;
}

TEST_F(CompareCli, JsonAndCsvHoldWhatEvalFindsAndEachPosition) {
  const Outcome outcome = run(compare("quantized", {"--json", "--positions", folder_ / "positions.csv"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json json = Json::parse(outcome.out), &texts = json.at("texts");
  EXPECT_EQ(json.at("folders").at("quantized"), (folder_ / "quantized").string());
  EXPECT_TRUE(json.contains("disagreement"));
  ASSERT_EQ(texts.size(), 2U);

  const auto eval = [&](const char* model, std::vector<std::string> more) {
    std::vector<std::string> arguments{"eval", folder_ / model, "--context", "32", "--threads", "1", "--json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Json::parse(run(arguments).out);
  };
  const Json plain = eval("model", {"--text", first_, "--text", second_}).at("texts");
  ASSERT_EQ(plain.size(), 2U);
  EXPECT_EQ(plain[1].at("text"), second_);
  const std::vector<std::string> rows = lines_of(read_file(folder_ / "positions.csv"));
  ASSERT_EQ(rows.size(), 1U + 31 + 23);
  EXPECT_EQ(rows[0], "text,position,loss_model,loss_quantized,kl");
  size_t row = 1;
  for (size_t i = 0; i < 2; ++i) {
    const Json& text = texts[i];
    EXPECT_EQ(text.at("model").at("perplexity"), plain[i].at("perplexity"));
    EXPECT_EQ(text.at("quantized").at("perplexity"),
              eval("quantized", {"--text", i == 0 ? first_ : second_}).at("perplexity"))
        << "for one text, eval's result is one object";
    const double ratio = text.at("quantized").at("perplexity").get<double>() / plain[i].at("perplexity").get<double>();
    EXPECT_NEAR(text.at("change_percent").get<double>(), 100 * (ratio - 1), 1e-9);
    EXPECT_GT(text.at("change_percent_error").get<double>(), 0);
    EXPECT_LE(text.at("kl_99").get<double>(), text.at("max_kl").get<double>());
    EXPECT_LT(text.at("same_top").get<double>(), 1);

    const Json& positions = text.at("positions");
    const size_t count = positions.at("position").size();
    EXPECT_EQ(count, i == 0 ? 31U : 23U);
    double loss = 0, divergence = 0;
    for (size_t p = 0; p < count; ++p, ++row) {
      EXPECT_EQ(positions.at("position")[p], p + 1);
      EXPECT_EQ(positions.at("windows")[p], i == 0 ? 8 : 3);
      loss += positions.at("loss_quantized")[p].get<double>() / static_cast<double>(count);
      divergence += positions.at("kl")[p].get<double>() / static_cast<double>(count);

      const std::string quoted = '"' + (folder_ / "b, \"\"quoted\"\".jsonl").string() + '"';
      const std::string& name = i == 0 ? first_ : quoted;
      ASSERT_EQ(rows[row].find(name + "," + std::to_string(p + 1) + ","), 0U) << rows[row];
      std::istringstream figures(rows[row].substr(name.size() + 1));
      for (const char* column : {"position", "loss_model", "loss_quantized", "kl"}) {
        std::string figure;
        std::getline(figures, figure, ',');
        const double value = positions.at(column)[p].get<double>();
        EXPECT_NEAR(std::stod(figure), value, 1e-8 * std::abs(value)) << column;
      }
    }
    EXPECT_NEAR(loss, text.at("quantized").at("mean_nll").get<double>(), 1e-9);
    EXPECT_NEAR(divergence, text.at("mean_kl").get<double>(), 1e-9);
  }
}

TEST_F(CompareCli, AModelIsLikeItself) {
  const Outcome outcome = run(compare("model", {"--json"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json json = Json::parse(outcome.out);
  EXPECT_TRUE(json.at("disagreement").is_null());
  for (const Json& text : json.at("texts")) {
    EXPECT_EQ(text.at("mean_kl"), 0.0);
    EXPECT_EQ(text.at("same_top"), 1.0);
    EXPECT_EQ(text.at("change_percent"), 0.0);
  }
  const std::string table = run(compare("model")).out;
  EXPECT_NE(table.find("+0.00 % +- 0.00"), std::string::npos) << table;
  EXPECT_NE(table.find("100.00 %"), std::string::npos) << table;
  EXPECT_EQ(table.find("warning"), std::string::npos) << table;
}

TEST_F(CompareCli, TextsThatDisagreeAreNamed) {
  // A wrong model: its embedding of token 5 is that of token 6. Only one text has the token.
  std::vector<TinyTensor> tensors = tiny_tensors();
  for (TinyTensor& tensor : tensors) {
    if (tensor.spec.name != "model.embed_tokens.weight") continue;
    const int64_t width = tensor.spec.shape[1];
    for (int64_t k = 0; k < width; ++k) tensor.values[5 * width + k] = tensor.values[6 * width + k];
  }
  write_model(folder_ / "astray", tiny_config(), tensors);
  // Often enough for a small error.
  const auto write_pairs = [&](const fs::path& file, int token, int next) {
    std::vector<int> ids;
    for (int i = 0; i < 16; ++i) ids.insert(ids.end(), {token, next});
    std::ofstream out(file);
    for (int line = 0; line < 32; ++line) out << Json{{"input_ids", ids}}.dump() << "\n";
  };
  write_pairs(folder_ / "without.jsonl", 7, 9);
  const auto change_on = [&](const fs::path& file) {
    const Outcome outcome = run({"compare", folder_ / "model", folder_ / "astray", "--text", file, "--json"});
    return Json::parse(outcome.out).at("texts").at(0).at("change_percent").get<double>();
  };
  int next = 10;
  do {
    ASSERT_LT(next, 60) << "the wrong embedding makes no next token less likely";
    write_pairs(folder_ / "with.jsonl", 5, next++);
  } while (change_on(folder_ / "with.jsonl") < 20);
  const std::vector<std::string> both{
      "compare", folder_ / "model",        folder_ / "astray", "--text", folder_ / "with.jsonl",
      "--text",  folder_ / "without.jsonl"};
  const Outcome outcome = run(both);
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const std::vector<std::string> lines = lines_of(outcome.out);
  ASSERT_EQ(lines.size(), 4U) << outcome.out;
  EXPECT_EQ(lines[3].find("warning: the texts disagree"), 0U) << lines[3];
  EXPECT_LT(lines[3].find("with.jsonl"), lines[3].find("without.jsonl")) << "the worse one first: " << lines[3];
  std::vector<std::string> as_json = both;
  as_json.push_back("--json");
  EXPECT_EQ("warning: " + Json::parse(run(as_json).out).at("disagreement").get<std::string>(), lines[3]);
}

TEST_F(CompareCli, BadFilesAreRefusedBeforeTheWorkBegins) {
  const auto refused = [&](const std::vector<std::string>& more, const std::vector<std::string>& words) {
    const Outcome outcome = run(compare("quantized", more));
    expect_refusal({outcome.code, outcome.out, outcome.err.substr(outcome.err.find("gptq: "))}, words);
    EXPECT_EQ(outcome.err.find("block 1/"), std::string::npos) << outcome.err;
    EXPECT_EQ(outcome.out, "");
  };
  refused({"--text", folder_ / "none.jsonl"}, {"none.jsonl"});
  refused({"--text", "-", "--text", "-"}, {"--text -", "stdin"});
  refused({"--positions", folder_ / "nowhere" / "positions.csv"}, {"--positions", "nowhere"});
  refused({"--positions", folder_.path()}, {"--positions", "cannot be written"});
  const std::string before = read_file(first_);
  refused({"--positions", first_}, {"--positions", "ids.jsonl"});
  EXPECT_EQ(read_file(first_), before);
  refused({"--text", folder_ / "none.jsonl", "--positions", folder_ / "positions.csv"}, {"none.jsonl"});
  EXPECT_FALSE(fs::exists(folder_ / "positions.csv")) << "a run that fails leaves no empty file";
}

}  // namespace
}  // namespace gptq
