// The program as a user runs it: every kind of bad input gives one sentence, exit code 2 and no output folder, and
// leaves the source unchanged.
#include "apps/cli.h"

#include <chrono>
#include <cmath>
#include <functional>
#include <thread>

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

namespace gptq {
namespace {

TEST_F(Cli, QuantizesEvaluatesComparesAndInspects) {
  const Outcome quantized = run(quantize({"--json", "--report", folder_ / "report.json"}));
  ASSERT_EQ(quantized.code, 0) << quantized.err;
  const Json report = Json::parse(quantized.out);
  EXPECT_EQ(report.at("linears").size(), 14U);
  EXPECT_EQ(Json::parse(read_file(folder_ / "report.json")), report);
  EXPECT_NE(quantized.err.find("block 2/2"), std::string::npos) << "progress goes to stderr: " << quantized.err;
  expect_source_untouched();

  const Outcome eval = run({"eval", folder_ / "out", "--text", folder_ / "ids.jsonl", "--context", "32", "--json"});
  ASSERT_EQ(eval.code, 0) << eval.err;
  const Json result = Json::parse(eval.out);
  for (const char* key : {"perplexity", "mean_nll", "predicted_tokens", "windows", "seconds"})
    EXPECT_TRUE(result.contains(key)) << key;
  EXPECT_EQ(result.at("predicted_tokens"), 8 * 31);
  EXPECT_NEAR(result.at("perplexity").get<double>(), std::exp(result.at("mean_nll").get<double>()), 1e-6);

  const Outcome compared = run(
      {"compare", folder_ / "model", folder_ / "out", "--text", folder_ / "ids.jsonl", "--context", "32", "--json"});
  ASSERT_EQ(compared.code, 0) << compared.err;
  const Json comparison = Json::parse(compared.out).at("texts").at(0);
  EXPECT_GT(comparison.at("mean_kl").get<double>(), 0);
  EXPECT_EQ(comparison.at("quantized").at("perplexity"), result.at("perplexity"));

  const Outcome inspected = run({"inspect", folder_ / "out", "--json"});
  ASSERT_EQ(inspected.code, 0) << inspected.err;
  EXPECT_EQ(Json::parse(inspected.out).at("quantization").at("bits"), 4);
  EXPECT_EQ(run({"inspect", folder_ / "model", "--verbose"}).code, 0);
}

TEST_F(Cli, RecipesAreOptionsThatTheReportAndTheFolderTell) {
  const Outcome outcome =
      run(quantize({"--preset", "best", "--bits", "3", "--alpha", "0.4", "--refine", "c1 r", "--json"}));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const Json report = Json::parse(outcome.out), &recipe = report.at("recipe");
  EXPECT_EQ(recipe.at("targets"), "corrected");
  EXPECT_EQ(recipe.at("alpha"), 0.4);
  EXPECT_EQ(recipe.at("refine"), "c1 r");
  EXPECT_EQ(recipe.at("signed_scales"), true);
  for (const Json& linear : report.at("linears")) {
    std::vector<std::string> stages;
    for (const Json& stage : linear.at("loss_after")) stages.push_back(stage.at("stage"));
    EXPECT_EQ(stages, (std::vector<std::string>{"rounded", "columns", "sweep", "refit"}));
    EXPECT_GT(linear.at("tokens"), 0);
    EXPECT_GT(linear.at("scales").at("least"), 0);
    EXPECT_GT(linear.at("scales").at("negative"), 0.2);
    EXPECT_LT(linear.at("scales").at("negative"), 0.8);
  }
  const Json inspected = Json::parse(run({"inspect", folder_ / "out", "--json"}).out);
  EXPECT_EQ(inspected.at("quantization").at("signed_scales"), true);
  EXPECT_EQ(run({"eval", folder_ / "out", "--text", folder_ / "ids.jsonl", "--context", "32", "--quiet"}).code, 0);

  const auto refused = [&](const std::vector<std::string>& options, const std::string& flag) {
    const Outcome refusal = run(quantize(options));
    EXPECT_EQ(refusal.code, 2) << refusal.err;
    EXPECT_NE(refusal.err.find(flag), std::string::npos) << refusal.err;
  };
  refused({"--overwrite", "--signed-scales", "--no-signed-scales"}, "--no-signed-scales");
  refused({"--overwrite", "--targets", "other"}, "--targets other");
  refused({"--overwrite", "--refine", "r c"}, "--refine");
  refused({"--overwrite", "--alpha", "0.5"}, "--alpha");
}

TEST_F(Cli, CompressedTensorsIsAFormatThatAllCommandsKnow) {
  const Outcome quantized = run(quantize({"--checkpoint-format", "compressed-tensors", "--json"}));
  ASSERT_EQ(quantized.code, 0) << quantized.err;
  EXPECT_EQ(Json::parse(quantized.out).at("checkpoint_format"), "compressed-tensors");
  EXPECT_FALSE(fs::exists(folder_ / "out" / "quantize_config.json"));
  const Outcome compared = run(
      {"compare", folder_ / "model", folder_ / "out", "--text", folder_ / "ids.jsonl", "--context", "32", "--json"});
  ASSERT_EQ(compared.code, 0) << compared.err;
  const Outcome eval = run({"eval", folder_ / "out", "--text", folder_ / "ids.jsonl", "--context", "32", "--json"});
  ASSERT_EQ(eval.code, 0) << eval.err;
  EXPECT_EQ(Json::parse(compared.out).at("texts")[0].at("quantized").at("perplexity"),
            Json::parse(eval.out).at("perplexity"));
  const Outcome inspected = run({"inspect", folder_ / "out", "--verbose"});
  ASSERT_EQ(inspected.code, 0) << inspected.err;
  EXPECT_NE(inspected.out.find("compressed-tensors: 4 bits, group 32, symmetric"), std::string::npos) << inspected.out;
}

TEST_F(Cli, RecipeFilesAndAverageBitsAreOptions) {
  std::ofstream(folder_ / "recipe.json") << R"({"bits": 3, "dynamic": {".*down_proj": {"bits": 8}, "-:.*o_proj": {}}})";
  const Outcome mixed = run(quantize({"--recipe", folder_ / "recipe.json", "--json"}));
  ASSERT_EQ(mixed.code, 0) << mixed.err;
  const Json report = Json::parse(mixed.out);
  EXPECT_EQ(report.at("linears").size(), 12U);
  for (const Json& linear : report.at("linears")) {
    const bool down = linear.at("name").get<std::string>().ends_with("down_proj");
    EXPECT_EQ(linear.at("bits"), down ? 8 : 3) << linear.at("name");
  }
  const Outcome over = run(quantize({"--recipe", folder_ / "recipe.json", "--bits", "2", "--overwrite", "--json"}));
  ASSERT_EQ(over.code, 0) << over.err;
  EXPECT_EQ(Json::parse(over.out).at("recipe").at("bits"), 2) << "flags override the file";

  const Outcome average = run(quantize({"--average-bits", "3.5", "--overwrite", "--json"}));
  ASSERT_EQ(average.code, 0) << average.err;
  EXPECT_EQ(Json::parse(average.out).at("bit_choices").size(), 8U);
  EXPECT_NE(average.err.find("chosen step by step"), std::string::npos) << average.err;
  const Outcome planned = run({"plan", folder_ / "model", "--average-bits", "3.5", "--group-size", "32",
                               "--calibration", folder_ / "ids.jsonl"});
  EXPECT_EQ(planned.code, 0) << planned.err;
  const auto refused = [&](const std::vector<std::string>& flags, const std::string& word) {
    const Outcome outcome = run(quantize(flags));
    EXPECT_EQ(outcome.code, 2);
    EXPECT_NE(outcome.err.find(word), std::string::npos) << outcome.err;
  };
  refused({"--overwrite", "--average-bits", "3.5", "--bits", "4"}, "contradict");
  refused({"--overwrite", "--average-bits", "3.5", "--method", "rtn"}, "--average-bits");
  refused({"--overwrite", "--recipe", folder_ / "none.json"}, "none.json");
  refused({"--overwrite", "--for", "exllamav2", "--bits", "3"}, "4 bits only");
}

TEST_F(Cli, PlansOfAllPresetsStandSideBySide) {
  std::vector<std::string> arguments = quantize({"--presets"});
  arguments[0] = "plan";
  const Outcome table = run(arguments);
  ASSERT_EQ(table.code, 0) << table.err;
  for (const char* preset : {"default", "best", "paper", "group-aware"})
    EXPECT_NE(table.out.find(preset), std::string::npos) << table.out;
  arguments.push_back("--json");
  const Json rows = Json::parse(run(arguments).out);
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_GT(rows[1].at("plan").at("host").at("peak_bytes"), rows[0].at("plan").at("host").at("peak_bytes"));
}

TEST_F(Cli, QuietSaysNothingAtAll) {
  const Outcome outcome = run(quantize({"--quiet"}));
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.out + outcome.err, "");
}

TEST_F(Cli, ReadsCalibrationFromStandardInput) {
  std::vector<std::string> arguments = quantize({"--quiet"});
  arguments[4] = "-";
  EXPECT_EQ(run(arguments, {}, folder_ / "ids.jsonl").code, 0);
}

TEST_F(Cli, HelpFitsOneScreenAndShowsDefaults) {
  const Outcome help = run({"quantize", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_LE(std::count(help.out.begin(), help.out.end(), '\n'), 60);
  for (const char* word : {"--bits", "[4]", "--group-size", "128", "2048", "5GB", "--desc-act"})
    EXPECT_NE(help.out.find(word), std::string::npos) << word;
  for (const char* command : {"eval", "compare", "inspect", "tokenize", "demo"})
    EXPECT_EQ(run({command, "--help"}).code, 0) << command;
}

TEST_F(Cli, FlagsThatMeanNothingAreRefused) {
  for (const auto& [flags, word] : std::vector<std::pair<std::vector<std::string>, std::string>>{
           {{"--bits", "5"}, "--bits 5"},
           {{"--bits", "0"}, "--bits 0"},
           {{"--bits", "four"}, "--bits"},
           {{"--group-size", "48"}, "--group-size 48"},
           {{"--group-size", "0"}, "--group-size 0"},
           {{"--group-size", "large"}, "--group-size large: give auto"},
           {{"--damp-percent", "1.5"}, "--damp-percent"},
           {{"--preset", "fast"}, "--preset fast"},
           {{"--order", "random"}, "--order random"},
           {{"--scale-search", "best"}, "--scale-search best"},
           {{"--method", "awq"}, "--method awq"},
           {{"--checkpoint-format", "marlin"}, "--checkpoint-format marlin"},
           {{"--max-shard-size", "5 parsecs"}, "5 parsecs"},
           {{"--modules-in-block-to-quantize", "self_attn.query"}, "self_attn.q_proj"},
           {{"--modules-in-block-to-quantize", "[["}, "--modules-in-block-to-quantize"},
           {{"--samples", "0"}, "--samples"},
           {{"--sequence-length", "-3"}, "--sequence-length"},
           {{"--threads", "-1"}, "--threads"},
           {{"--batch-size", "-1"}, "--batch-size"},
           {{"--unknown"}, "--unknown"},
           {{"--asym", "--checkpoint-format", "gptq"}, "gptq_v2"},
           {{"--checkpoint-format", "compressed-tensors", "--bits", "3"}, "--bits 3"},
           {{"--checkpoint-format", "compressed-tensors", "--desc-act"}, "g_idx"},
           {{"--desc-act", "--order", "natural"}, "--order natural"},
           {{"--desc-act", "--static-groups"}, "--desc-act"},
           {{"--no-static-groups"}, "--desc-act"},
           {{"--method", "rtn", "--desc-act"}, "rtn"},
           {{"--method", "rtn", "--scale-search", "diag"}, "rtn"},
           {{"--quiet", "--verbose"}, "--quiet"},
           {{"--report", "/nowhere/report.json"}, "/nowhere/report.json"}}) {
    SCOPED_TRACE(flags[0] + (flags.size() > 1 ? " " + flags[1] : ""));
    expect_refusal(run(quantize(flags)), {word});
  }
  EXPECT_EQ(run({"quantize"}).code, 2);
  EXPECT_EQ(run({}).code, 2);
  EXPECT_EQ(run({"dance"}).code, 2);
  expect_source_untouched();
}

TEST_F(Cli, FoldersThatAreNoModelsAreRefused) {
  expect_refusal(run(quantize({}, "missing")), {"missing"});
  fs::create_directory(folder_ / "empty");
  expect_refusal(run(quantize({}, "empty")), {"empty", "config.json"});
  expect_refusal(run(quantize({}, "ids.jsonl")), {"ids.jsonl"});
  fs::create_directory(folder_ / "pickled");
  write_file(folder_ / "pickled" / "config.json", tiny_config().dump());
  write_file(folder_ / "pickled" / "pytorch_model.bin", "PK");
  expect_refusal(run(quantize({}, "pickled")), {"pytorch_model.bin", "safetensors"});
}

TEST_F(Cli, ModelsOfAnUnknownTypeAreRefusedWithTheKnownOnes) {
  write_with_config([](Json& config) { config["model_type"] = "perceptron"; });
  expect_refusal(run(quantize({}, "changed")), {"perceptron", "llama"});
}

TEST_F(Cli, ConfigsThatMakeNoSenseAreRefused) {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, Json>>{{"hidden_size", -1},
                                                 {"num_attention_heads", 0},
                                                 {"num_key_value_heads", 3},
                                                 {"num_hidden_layers", "two"},
                                                 {"hidden_act", "sine"},
                                                 {"intermediate_size", 97},
                                                 {"vocab_size", 5},
                                                 {"rope_scaling", {{"rope_type", "spiral"}, {"factor", 2.0}}}}) {
    SCOPED_TRACE(key);
    write_with_config([&, &key = key, &value = value](Json& config) { config[key] = value; });
    expect_refusal(run(quantize({}, "changed")), {});
    fs::remove_all(folder_ / "changed");
  }
  write_with_config([](Json& config) { config.erase("hidden_size"); });
  expect_refusal(run(quantize({}, "changed")), {"hidden_size"});
  write_file(folder_ / "changed" / "config.json", "{\"model_type\": \"llama\",");
  expect_refusal(run(quantize({}, "changed")), {"config.json"});
}

TEST_F(Cli, BrokenSafetensorsAreRefused) {
  const fs::path file = folder_ / "changed" / "model.safetensors";
  const std::string good = original_.at("model.safetensors");
  const auto header_length = [](uint64_t length) { return std::string(reinterpret_cast<const char*>(&length), 8); };
  fs::create_directory(folder_ / "changed");
  write_file(folder_ / "changed" / "config.json", tiny_config().dump());
  const std::string overlap =
      R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})";
  const std::string duplicate =
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})";
  for (const auto& [what, bytes] : std::vector<std::pair<std::string, std::string>>{
           {"truncated", good.substr(0, good.size() / 2)},
           {"empty", ""},
           {"seven bytes", "1234567"},
           {"wrong magic", "GGUF" + good.substr(4)},
           {"header beyond the file", header_length(good.size()) + good.substr(8)},
           {"oversized header", header_length(uint64_t{1} << 62) + good.substr(8)},
           {"trailing bytes", good + "more"},
           {"overlap", header_length(overlap.size()) + overlap + std::string(12, '\0')},
           {"duplicate", header_length(duplicate.size()) + duplicate + std::string(8, '\0')}}) {
    SCOPED_TRACE(what);
    write_file(file, bytes);
    expect_refusal(run(quantize({}, "changed")), {"model.safetensors"});
  }
}

TEST_F(Cli, AnIndexThatNamesWhatIsNotThereIsRefused) {
  write_tiny_model(folder_ / "changed");
  const fs::path index = folder_ / "changed" / "model.safetensors.index.json";
  fs::rename(folder_ / "changed" / "model.safetensors", folder_ / "changed" / "part.safetensors");
  write_file(index, R"({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}})");
  expect_refusal(run(quantize({}, "changed")), {"model-00001-of-00002.safetensors"});
  write_file(index, R"({"weight_map": {"no.such.tensor": "../part.safetensors"}})");
  expect_refusal(run(quantize({}, "changed")), {"no.such.tensor"});
}

TEST_F(Cli, MissingAndMisshapenTensorsAreRefused) {
  write_changed([](TinyTensor& tensor) {
    if (tensor.spec.name == "model.layers.1.mlp.up_proj.weight")
      tensor.spec.name = "model.layers.1.mlp.upp_proj.weight";
  });
  expect_refusal(run(quantize({}, "changed")),
                 {"model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.upp_proj.weight"});
  fs::remove_all(folder_ / "changed");
  write_changed([](TinyTensor& tensor) {
    if (tensor.spec.name == "model.layers.0.self_attn.k_proj.weight") tensor.spec.shape = {64, 32};
  });
  expect_refusal(run(quantize({}, "changed")), {"model.layers.0.self_attn.k_proj.weight", "[64, 32]", "[32, 64]"});
}

TEST_F(Cli, WeightsThatAreNotFiniteAreRefusedWithTheirNumber) {
  write_changed([](TinyTensor& tensor) {
    if (tensor.spec.name != "model.layers.1.mlp.gate_proj.weight") return;
    tensor.values[5] = std::nanf("");
    tensor.values[77] = INFINITY;
  });
  expect_refusal(run(quantize({}, "changed")), {"model.layers.1.mlp.gate_proj.weight", "2"});
}

TEST_F(Cli, AFailedRunLeavesNoEmptyReport) {
  expect_refusal(run(quantize({"--report", folder_ / "report.json"}, "missing")), {"missing"});
  EXPECT_FALSE(fs::exists(folder_ / "report.json"));
  write_file(folder_ / "report.json", "an older one");
  expect_refusal(run(quantize({"--report", folder_ / "report.json"}, "missing")), {"missing"});
  EXPECT_EQ(read_file(folder_ / "report.json"), "an older one");
}

TEST_F(Cli, QuantizedModelsAreRefused) {
  ASSERT_EQ(run(quantize({"--quiet"})).code, 0);
  fs::rename(folder_ / "out", folder_ / "quantized");
  expect_refusal(run(quantize({}, "quantized")), {"already quantized"});
}

TEST_F(Cli, ShapesThatTheFormatCannotHoldAreRefused) {
  write_tiny_model(folder_ / "changed", {.intermediate = 100});
  expect_refusal(run(quantize({"--group-size", "4", "--bits", "3"}, "changed")), {"mlp.gate_proj", "multiples of 32"});
}

TEST_F(Cli, CalibrationThatGivesNothingIsRefused) {
  const auto with = [&](const std::string& name, const std::string& text) {
    write_file(folder_ / name, text);
    std::vector<std::string> arguments = quantize();
    arguments[4] = folder_ / name;
    return run(arguments);
  };
  std::vector<std::string> without = quantize();
  without.erase(without.begin() + 3, without.begin() + 5);
  expect_refusal(run(without), {"tokenizer.json", "input_ids"});  // for the built-in text
  std::vector<std::string> missing = quantize();
  missing[4] = folder_ / "none.txt";
  expect_refusal(run(missing), {"none.txt"});
  expect_refusal(with("empty.jsonl", ""), {"empty.jsonl"});
  expect_refusal(with("ids.json.txt", "text, but this model has no tokenizer"), {"tokenizer.json", "input_ids"});
  expect_refusal(with("broken.jsonl", "{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [1,"), {"broken.jsonl", "line 2"});
  expect_refusal(with("other.jsonl", "{\"prompt\": \"hello\"}\n"), {"other.jsonl", "line 1"});
  expect_refusal(with("strings.jsonl", "{\"input_ids\": [\"a\"]}\n"), {"strings.jsonl", "line 1"});
  expect_refusal(with("outside.jsonl", "{\"input_ids\": [1, 128, 3]}\n"), {"128"});
  expect_refusal(with("negative.jsonl", "{\"input_ids\": [1, -2, 3]}\n"), {"-2"});
}

TEST_F(Cli, WithoutCalibrationTheBuiltInTextIsUsed) {
  write_tiny_model(folder_ / "demo", {.vocabulary = 2048});
  fs::copy_file(fs::path(GPTQ_SOURCE) / "demo" / "model" / "tokenizer.json", folder_ / "demo" / "tokenizer.json");
  const Outcome outcome = run({"quantize", folder_ / "demo", folder_ / "out", "--samples", "8", "--sequence-length",
                               "32", "--group-size", "32", "--threads", "1"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* words : {"no text is given, so the built-in text is used", "--calibration FILE",
                            "8 sequences, 256 tokens of the built-in text"})
    EXPECT_NE(outcome.err.find(words), std::string::npos) << words << " is not in: " << outcome.err;
}

TEST_F(Cli, AKeyOfRecordsIsChosen) {
  write_tiny_model(folder_ / "demo", {.vocabulary = 2048});
  fs::copy_file(fs::path(GPTQ_SOURCE) / "demo" / "model" / "tokenizer.json", folder_ / "demo" / "tokenizer.json");
  write_file(folder_ / "bodies.csv", "id,body\n1,\"once upon, a time\"\n");
  write_file(folder_ / "text.txt", "once upon, a time");
  const std::string demo = folder_ / "demo", table = folder_ / "bodies.csv";
  const Outcome text = run({"tokenize", demo, "--text", folder_ / "text.txt"});
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_EQ(run({"tokenize", demo, "--text", table, "--text-key", "body"}).out, text.out);
  expect_refusal(run({"tokenize", demo, "--text", table}), {"bodies.csv, row 2", "\"body\"", "--text-key"});
  const auto quantized_with = [&](const std::string& calibration) {
    return run({"quantize", demo, folder_ / "out", "--group-size", "32", "--calibration", calibration});
  };
  expect_refusal(quantized_with(table), {"bodies.csv, row 2", "--calibration-key"});
  expect_refusal(quantized_with("wikitext2"), {"wikitext2 does not exist", "load_dataset"});
}

TEST_F(Cli, TextThatIsTooShortOrNoTextIsRefused) {
  write_tiny_model(folder_ / "demo", {.vocabulary = 2048});
  fs::copy_file(fs::path(GPTQ_SOURCE) / "demo" / "model" / "tokenizer.json", folder_ / "demo" / "tokenizer.json");
  const auto with = [&](const std::string& text) {
    write_file(folder_ / "text.txt", text);
    std::vector<std::string> arguments = quantize({}, "demo");
    arguments[4] = folder_ / "text.txt";
    return run(arguments);
  };
  expect_refusal(with(""), {"text.txt"});
  expect_refusal(with("Once upon a time."), {"text.txt", "32"});
  expect_refusal(with("fine until here \xff\xfe and then not"), {"text.txt", "UTF-8"});
}

TEST_F(Cli, UnknownTokenizerPartsAreNamed) {
  write_tiny_model(folder_ / "changed");
  write_file(folder_ / "changed" / "tokenizer.json", R"({"model": {"type": "Telepathy", "vocab": {}, "merges": []}})");
  write_file(folder_ / "text.txt", "hello");
  std::vector<std::string> arguments = quantize({}, "changed");
  arguments[4] = folder_ / "text.txt";
  expect_refusal(run(arguments), {"Telepathy", "input_ids"});
}

TEST_F(Cli, OutputsThatWouldDestroySomethingAreRefused) {
  std::vector<std::string> inside = quantize();
  inside[2] = folder_ / "model" / "out";
  EXPECT_EQ(run(inside).code, 2);
  std::vector<std::string> same = quantize({"--overwrite"});
  same[2] = folder_ / "model";
  EXPECT_EQ(run(same).code, 2);
  expect_source_untouched();
  EXPECT_EQ(fs::exists(folder_ / "model" / "out"), false);

  fs::create_directory(folder_ / "precious");
  write_file(folder_ / "precious" / "thesis.txt", "years of work");
  std::vector<std::string> precious = quantize({"--overwrite"});
  precious[2] = folder_ / "precious";
  EXPECT_EQ(run(precious).code, 2);
  EXPECT_EQ(read_file(folder_ / "precious" / "thesis.txt"), "years of work");
}

TEST_F(Cli, AnExistingOutputNeedsOverwriteAndIsReplacedWhole) {
  ASSERT_EQ(run(quantize({"--quiet"})).code, 0);
  const auto before = contents(folder_ / "out");
  const Outcome refused = run(quantize());
  EXPECT_EQ(refused.code, 3);
  EXPECT_NE(refused.err.find("--overwrite"), std::string::npos) << refused.err;
  EXPECT_EQ(contents(folder_ / "out"), before);
  std::vector<std::string> broken = quantize({"--overwrite"});
  broken[4] = folder_ / "none.txt";
  EXPECT_EQ(run(broken).code, 2);
  EXPECT_EQ(contents(folder_ / "out"), before) << "a failed run leaves the old output";
  ASSERT_EQ(run(quantize({"--quiet", "--overwrite", "--bits", "8"})).code, 0);
  EXPECT_NE(contents(folder_ / "out"), before);
}

TEST_F(Cli, PlacesThatMayNotBeWrittenAreRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "changes its user, which only root may";
  chmod(folder_.path().c_str(), 0755);
  const Outcome outcome = run(quantize(), [] {
    if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0) _exit(99);
  });
  if (outcome.code == 127) GTEST_SKIP() << "the program lies where other users cannot run it";
  expect_refusal(outcome, {"out", "ermission"});
}

TEST_F(Cli, ADiskThatIsFullLeavesNothingBehind) {
  // Limits files to 8 kB, so that the writer fails as on a full disk.
  const Outcome outcome = run(quantize(), [] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{8192, 8192};
    setrlimit(RLIMIT_FSIZE, &limit);
  });
  expect_refusal(outcome, {"out", "bytes"});
}

TEST_F(Cli, InterruptsEndWithinASecondAndCleanUp) {
  write_tiny_model(folder_ / "long", {.hidden = 256, .intermediate = 512, .blocks = 24, .heads = 8, .head_dim = 32});
  write_ids(folder_ / "ids.jsonl", 64, 128);
  for (const int signal_number : {SIGINT, SIGTERM}) {
    fs::remove(folder_ / "stderr");  // keeps only the output of this run
    const pid_t child = start(quantize({"--samples", "64", "--sequence-length", "128"}, "long"), folder_ / "stdout",
                              folder_ / "stderr");
    for (int i = 0; i < 3000 && read_file(folder_ / "stderr").find("block 1/") == std::string::npos; ++i)
      usleep(10'000);
    const auto sent = std::chrono::steady_clock::now();
    kill(child, signal_number);
    EXPECT_EQ(exit_code(child), 130) << read_file(folder_ / "stderr");
    EXPECT_LT(std::chrono::steady_clock::now() - sent, std::chrono::milliseconds(1500));
    expect_nothing_left();
  }
}

TEST_F(Cli, EvaluationRefusesWhatItCannotMeasure) {
  const auto eval = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"eval", folder_ / "model"});
    return run(more);
  };
  expect_refusal(eval({}), {"--text"});
  expect_refusal(eval({"--text", folder_ / "none.jsonl"}), {"none.jsonl"});
  expect_refusal(eval({"--text", folder_ / "ids.jsonl", "--context", "1"}), {"--context"});
  expect_refusal(eval({"--text", folder_ / "ids.jsonl", "--windows", "-1"}), {"--windows"});
  expect_refusal(run({"compare", folder_ / "model", folder_ / "missing", "--text", folder_ / "ids.jsonl"}),
                 {"missing"});
  write_tiny_model(folder_ / "other", {.vocabulary = 160});
  expect_refusal(run({"compare", folder_ / "model", folder_ / "other", "--text", folder_ / "ids.jsonl"}),
                 {"160", "128"});
}

TEST_F(Cli, TokenizePrintsOneArrayALine) {
  write_file(folder_ / "two.jsonl", "{\"text\": \"Once upon a time\"}\n{\"text\": \"The end\"}\n");
  const Outcome outcome = run({"tokenize", fs::path(GPTQ_SOURCE) / "demo" / "model", "--text", folder_ / "two.jsonl"});
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(std::count(outcome.out.begin(), outcome.out.end(), '\n'), 2);
  EXPECT_TRUE(Json::parse(outcome.out.substr(0, outcome.out.find('\n'))).is_array());
}

}  // namespace
}  // namespace gptq
