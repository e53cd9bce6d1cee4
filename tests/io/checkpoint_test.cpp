// Model folders: read in all states of hub caches and interrupted downloads, written completely or not at all.
#include "io/checkpoint.h"

#include <array>
#include <fstream>
#include <limits>
#include <optional>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/error.h"
#include "io/checkpoint_writer.h"
#include "io/child.h"
#include "io/digest.h"
#include "io/output_folder.h"
#include "tiny_model.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;
using testing_io::become_nobody;
using testing_io::in_child;
using testing_io::limit_file_size;
using testing_model::contents;
using testing_model::read_file;
using testing_model::TemporaryFolder;
using testing_model::write_file;

// A file of vectors, each with the length of its name and its index.
void write_tensors(const fs::path& path, const std::vector<std::string>& names) {
  fs::create_directories(path.parent_path());
  std::vector<TensorSpec> specs;
  for (const std::string& name : names) specs.push_back({name, "F32", {2}});
  SafetensorsWriter writer(path, specs);
  for (size_t i = 0; i < names.size(); ++i) {
    const float values[] = {static_cast<float>(names[i].size()), static_cast<float>(i)};
    writer.write(names[i], values, sizeof values);
  }
  writer.finish();
}

std::string refusal(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  return "accepted";
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    fs::create_directory(model_);
    write_file(model_ / "config.json", R"({"model_type": "llama"})");
  }
  void write_index(const std::string& weight_map) {
    write_file(model_ / "model.safetensors.index.json",
               R"({"metadata": {"total_size": 16}, "weight_map": )" + weight_map + "}");
  }
  void expect_refusal(const std::vector<std::string>& parts) const {
    const std::string message = refusal([&] { const Checkpoint checkpoint(model_); });
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << "says '" << part << "': " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  std::vector<std::string> names() const {
    const Checkpoint checkpoint(model_);
    std::vector<std::string> all;
    for (const StoredTensor* tensor : checkpoint.tensors()) all.push_back(tensor->name);
    return all;
  }

  TemporaryFolder folder_;
  fs::path model_ = folder_ / "model";
};

TEST_F(CheckpointTest, ReadsASingleFile) {
  write_tensors(model_ / "model.safetensors", {"model.norm.weight", "lm_head.weight"});
  const Checkpoint checkpoint(model_.string() + "/");
  EXPECT_EQ(checkpoint.folder(), model_) << "without the slash at its end";
  EXPECT_EQ(checkpoint.config().at("model_type"), "llama");
  EXPECT_TRUE(checkpoint.quantization_config().is_null());
  EXPECT_EQ(checkpoint.bytes(), 16U);
  EXPECT_TRUE(checkpoint.has("lm_head.weight"));
  EXPECT_FALSE(checkpoint.has("lm_head"));
  const StoredTensor& tensor = checkpoint.tensor("lm_head.weight", {2});
  EXPECT_EQ(checkpoint.bytes_read(), 0U);
  EXPECT_EQ(checkpoint.load(tensor).row<float>(0)[0], 14);
  EXPECT_EQ(checkpoint.load(tensor).row<float>(0)[1], 1);
  EXPECT_EQ(checkpoint.bytes_read(), 16U);
  write_file(model_ / "other.safetensors", "not read");
  EXPECT_EQ(names(), (std::vector<std::string>{"model.norm.weight", "lm_head.weight"}));
}

TEST_F(CheckpointTest, ReadsTheOnlySafetensorsFileWhateverItsName) {
  write_tensors(model_ / "weights.safetensors", {"a"});
  EXPECT_EQ(names(), std::vector<std::string>{"a"});
  write_tensors(model_ / "more.safetensors", {"b"});
  expect_refusal({model_.string(), "more.safetensors", "weights.safetensors", "index.json"});
}

TEST_F(CheckpointTest, ReadsTheShardsThatTheIndexNames) {
  write_tensors(model_ / "model-00001-of-00002.safetensors", {"b", "a"});
  write_tensors(model_ / "model-00002-of-00002.safetensors", {"c", "left out"});
  write_tensors(model_ / "consolidated.safetensors", {"a"});
  write_index(R"({"a": "model-00001-of-00002.safetensors", "b": "./model-00001-of-00002.safetensors",
                  "c": "model-00002-of-00002.safetensors"})");
  EXPECT_EQ(names(), (std::vector<std::string>{"b", "a", "c", "left out"})) << "file by file, in order of offset";
}

TEST_F(CheckpointTest, AnIndexThatDoesNotFitItsShardsIsRefused) {
  const std::string index = (model_ / "model.safetensors.index.json").string();
  write_tensors(model_ / "one.safetensors", {"a"});
  write_tensors(model_ / "two.safetensors", {"b"});
  write_index(R"({"a": "one.safetensors", "b": "two.safetensors", "c": "three.safetensors"})");
  expect_refusal({index, "'c'", "three.safetensors", "missing"});
  for (const char* outside : {"../model/one.safetensors", "x/../one.safetensors", ""}) {
    write_index(cat(R"({"a": ")", outside, R"("})"));
    expect_refusal({index, "'a'", "not a file of this folder"});
  }
  write_index(R"({"a": ")" + (model_ / "one.safetensors").string() + R"("})");
  expect_refusal({index, "'a'", "not a file of this folder"});
  for (const char* map : {"[]", "{}", "null"}) {
    write_index(map);
    expect_refusal({index, "no weight_map"});
  }
  write_index(R"({"a": 1})");
  expect_refusal({index, "'a'", "no file name"});
  write_file(index, "[]");
  expect_refusal({index, "no weight_map"});
  write_tensors(model_ / "again.safetensors", {"c", "a"});
  write_tensors(model_ / "one.safetensors", {"a", "b"});
  write_index(R"({"b": "one.safetensors", "c": "again.safetensors"})");
  expect_refusal({"'a'", "again.safetensors", "one.safetensors", "both"});
}

// The shards decide; transformers reads them all and then looks for what it needs.
TEST_F(CheckpointTest, AnIndexThatIsWrongAboutTensorsIsAWarning) {
  write_tensors(model_ / "one.safetensors", {"a"});
  write_tensors(model_ / "two.safetensors", {"b"});
  write_index(R"({"a": "one.safetensors", "b": "two.safetensors", "mtp.c": "two.safetensors"})");
  const Checkpoint phantom(model_);
  ASSERT_EQ(phantom.warnings().size(), 1U);
  EXPECT_NE(phantom.warnings()[0].find("'mtp.c'"), std::string::npos) << phantom.warnings()[0];
  EXPECT_FALSE(phantom.has("mtp.c"));
  EXPECT_TRUE(phantom.is_phantom("mtp.c"));
  const std::string message = refusal([&] { phantom.tensor("mtp.c"); });
  EXPECT_NE(message.find("'mtp.c' is said to be in two.safetensors"), std::string::npos) << message;
  write_index(R"({"a": "two.safetensors", "b": "one.safetensors"})");
  const Checkpoint swapped(model_);
  EXPECT_TRUE(swapped.has("a") && swapped.has("b"));
  ASSERT_EQ(swapped.warnings().size(), 1U);
  EXPECT_NE(swapped.warnings()[0].find("wrong about 2 tensors"), std::string::npos) << swapped.warnings()[0];
}

TEST_F(CheckpointTest, AWholeFileIsReadBeforeTheShardsOfAnIndex) {
  write_tensors(model_ / "model.safetensors", {"whole"});
  write_tensors(model_ / "model-00001-of-00002.safetensors", {"a"});
  write_tensors(model_ / "model-00002-of-00002.safetensors", {"b"});
  const auto expect_warning = [&](const std::vector<std::string>& parts) {
    EXPECT_EQ(names(), std::vector<std::string>{"whole"});
    const std::vector<std::string> warnings = Checkpoint(model_).warnings();
    ASSERT_EQ(warnings.size(), 1U);
    for (const std::string& part : parts) EXPECT_NE(warnings[0].find(part), std::string::npos) << warnings[0];
  };
  const std::vector<std::string> both = {"model.safetensors is read", "model-00001-of-00002.safetensors",
                                         "model-00002-of-00002.safetensors"};
  expect_warning(both);  // also without an index
  write_index(R"({"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})");
  expect_warning(both);
  fs::remove(model_ / "model-00002-of-00002.safetensors");
  expect_warning({"model.safetensors.index.json", "model-00002-of-00002.safetensors is missing"});
  write_file(model_ / "model.safetensors.index.json", "[]");
  fs::remove(model_ / "model-00001-of-00002.safetensors");
  expect_warning({"no weight_map", "model.safetensors is read"});
  write_tensors(model_ / "more.safetensors", {"a"});
  write_index(R"({"whole": "model.safetensors", "a": "more.safetensors"})");
  EXPECT_EQ(names(), (std::vector<std::string>{"whole", "a"})) << "one set of weights";
  EXPECT_TRUE(Checkpoint(model_).warnings().empty());
}

TEST_F(CheckpointTest, ATensorInTwoShardsIsTheOneThatTheIndexNames) {
  write_tensors(model_ / "one.safetensors", {"a", "b"});
  write_tensors(model_ / "two.safetensors", {"b", "c"});  // its b has other values
  write_index(R"({"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"})");
  const Checkpoint checkpoint(model_);
  EXPECT_EQ(checkpoint.load(checkpoint.tensor("b")).row<float>(0)[1], 0);
  ASSERT_EQ(checkpoint.warnings().size(), 1U);
  EXPECT_NE(checkpoint.warnings()[0].find("'b'"), std::string::npos);
  write_tensors(model_ / "two.safetensors", {"x", "b"});
  write_index(R"({"a": "one.safetensors", "x": "two.safetensors"})");
  EXPECT_TRUE(Checkpoint(model_).warnings().empty()) << "the same values";
}

TEST_F(CheckpointTest, AnAdapterBesideTheWeightsIsAWarning) {
  write_tensors(model_ / "model.safetensors", {"a"});
  write_file(model_ / "adapter_config.json", "{}");
  const Checkpoint checkpoint(model_);
  ASSERT_EQ(checkpoint.warnings().size(), 1U);
  EXPECT_NE(checkpoint.warnings()[0].find("adapter_config.json"), std::string::npos);
}

TEST_F(CheckpointTest, TensorsAreEqualByTheirValues) {
  SafetensorsWriter writer(
      model_ / "model.safetensors",
      {{"a", "F32", {2, 2}}, {"b", "F32", {2, 2}}, {"narrow", "F16", {2, 2}}, {"flat", "F32", {4}}});
  const float a[] = {1, 2, 3, 4}, b[] = {1, 2, 3, 5};
  const Half narrow[] = {Half(1), Half(2), Half(3), Half(4)};
  writer.write("a", a, sizeof a);
  writer.write("b", b, sizeof b);
  writer.write("narrow", narrow, sizeof narrow);
  writer.write("flat", a, sizeof a);
  writer.finish();
  const Checkpoint checkpoint(model_);
  const auto equal = [&](const char* x, const char* y) {
    return checkpoint.equal(checkpoint.tensor(x), checkpoint.tensor(y));
  };
  EXPECT_TRUE(equal("a", "a") && equal("a", "narrow"));
  EXPECT_FALSE(equal("a", "b") || equal("a", "flat"));
  EXPECT_FALSE(equal("a", "b")) << "as it is remembered";
}

// Python writes numbers that JSON does not have, in configs of hybrid models.
TEST_F(CheckpointTest, InfinityAndNanAreReadAndWrittenAsPythonDoes) {
  write_tensors(model_ / "model.safetensors", {"a"});
  const std::string text =
      "{\n  \"model_type\": \"llama\",\n  \"limits\": [\n    0.0,\n    Infinity,\n    -Infinity,\n    NaN\n  ],\n"
      "  \"word\": \"NaN \\\" Infinity\"\n}\n";
  write_file(model_ / "config.json", text);
  const Checkpoint checkpoint(model_);
  EXPECT_EQ(checkpoint.config().at("limits").at(1).get<double>(), std::numeric_limits<double>::infinity());
  EXPECT_EQ(to_text(checkpoint.config()), text);
  write_file(model_ / "config.json", R"({"model_type": "llama", "a": Infinit})");
  expect_refusal({"config.json", "not valid JSON at line 1"});
}

TEST_F(CheckpointTest, FoldersWithoutAModelAreRefusedByName) {
  expect_refusal({model_.string(), "no weights"});
  write_file(model_ / "pytorch_model.bin.index.json", "{}");
  write_file(model_ / "pytorch_model-00001-of-00001.bin", "pickle");
  expect_refusal({model_.string(), "pytorch_model-00001-of-00001.bin", "safe_serialization=True"});
  fs::remove(model_ / "pytorch_model-00001-of-00001.bin");
  write_file(model_ / "llama-Q4.gguf", "GGUF");
  expect_refusal({"llama-Q4.gguf", "gguf_file='llama-Q4.gguf'", "save_pretrained"});
  fs::remove(model_ / "config.json");
  expect_refusal({model_.string(), "no config.json"});
  EXPECT_EQ(refusal([&] { const Checkpoint checkpoint(folder_ / "none"); }),
            (folder_ / "none").string() + ": no such folder");
  write_file(folder_ / "file", "x");
  EXPECT_NE(refusal([&] { const Checkpoint checkpoint(folder_ / "file"); }).find("not a folder"), std::string::npos);
}

TEST_F(CheckpointTest, BrokenConfigsAreRefusedWithTheirPlace) {
  const std::string config = (model_ / "config.json").string();
  write_tensors(model_ / "model.safetensors", {"a"});
  write_file(config, "{\n  \"a\": 1,\n  oops\n}");
  expect_refusal({config, "line 3, column 3"});
  write_file(config, "");
  expect_refusal({config, "line 1"});
  write_file(config, "[]");
  expect_refusal({config, "not a JSON object"});
  write_file(config, "{\"a\": 1e999}");
  expect_refusal({config, "too large"});
  write_file(config, "{\"a\": " + std::string(100'000, '[') + std::string(100'000, ']') + "}");
  expect_refusal({config, "nested deeper"});
  write_file(config, R"({"quantization_config": "gptq"})");
  expect_refusal({"quantization_config"});
  fs::remove(config);
  fs::create_directory(config);
  expect_refusal({config, "not a regular file"});
}

TEST_F(CheckpointTest, TheQuantizationConfigComesFromEitherFile) {
  write_tensors(model_ / "model.safetensors", {"a.qweight"});
  write_file(model_ / "quantize_config.json", R"({"bits": 3})");
  EXPECT_EQ(Checkpoint(model_).quantization_config().at("bits"), 3);
  write_file(model_ / "config.json", R"({"quantization_config": {"bits": 4}})");
  EXPECT_EQ(Checkpoint(model_).quantization_config().at("bits"), 4) << "config.json goes before";
}

// A merge that forgets the entry, and entries that switch nothing on.
TEST_F(CheckpointTest, AnEntryThatTheWeightsDenyIsAWarning) {
  write_tensors(model_ / "model.safetensors", {"a.weight"});
  for (const char* entry :
       {R"({"quant_method": "bitsandbytes", "load_in_4bit": true})", R"({"load_in_8bit": true})",
        R"({"bits": 4, "group_size": 128})", R"({"quant_method": "awq", "bits": 4})", R"({"quant_method": "fp8"})"}) {
    write_file(model_ / "config.json", cat(R"({"quantization_config": )", entry, "}"));
    const Checkpoint checkpoint(model_);
    EXPECT_TRUE(checkpoint.quantization_config().is_null()) << entry;
    ASSERT_EQ(checkpoint.warnings().size(), 1U) << entry;
    EXPECT_NE(checkpoint.warnings()[0].find("no weight is stored that way"), std::string::npos);
  }
  for (const char* entry : {"{}", "null", R"({"load_in_4bit": false, "load_in_8bit": false})"}) {
    write_file(model_ / "config.json", cat(R"({"quantization_config": )", entry, "}"));
    const Checkpoint checkpoint(model_);
    EXPECT_TRUE(checkpoint.quantization_config().is_null()) << entry;
    EXPECT_TRUE(checkpoint.warnings().empty()) << entry;
  }
  write_tensors(model_ / "model.safetensors", {"a.weight", "a.weight.absmax"});
  write_file(model_ / "config.json", R"({"quantization_config": {"quant_method": "bitsandbytes"}})");
  EXPECT_FALSE(Checkpoint(model_).quantization_config().is_null());
}

TEST_F(CheckpointTest, AFolderThatIsNoModelIsNamedForWhatItIs) {
  fs::remove(model_ / "config.json");
  write_file(model_ / "adapter_config.json", R"({"base_model_name_or_path": "some/model"})");
  expect_refusal({model_.string(), "adapter", "some/model", "merge"});
  fs::remove(model_ / "adapter_config.json");
  write_file(model_ / "params.json", "{}");
  expect_refusal({"params.json", "config.json"});
  fs::remove(model_ / "params.json");
  fs::create_directories(model_ / "snapshots" / "abc");
  write_file(model_ / "snapshots" / "abc" / "config.json", "{}");
  expect_refusal({"Hub's cache", (model_ / "snapshots" / "abc").string()});
  fs::rename(model_ / "snapshots", model_ / "models--a--b");
  expect_refusal({"cache of the Hub", "snapshots"});
  fs::remove_all(model_);
  expect_refusal({"no such folder"});
  const std::string message = refusal([] { const Checkpoint checkpoint("Some-Org/Model-8B"); });
  EXPECT_NE(message.find("hf download Some-Org/Model-8B"), std::string::npos) << message;
}

TEST_F(CheckpointTest, AMissingTensorIsReportedWithItsNearestNames) {
  write_tensors(model_ / "model.safetensors",
                {"model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight", "lm_head.weight"});
  const Checkpoint checkpoint(model_);
  const std::string message = refusal([&] { checkpoint.tensor("layers.1.mlp.up_proj.weight"); });
  EXPECT_NE(message.find(model_.string()), std::string::npos) << message;
  EXPECT_NE(message.find("'layers.1.mlp.up_proj.weight'"), std::string::npos) << message;
  EXPECT_NE(message.find("nearest: model.layers.1.mlp.up_proj.weight, model.layers.0"), std::string::npos) << message;
  const std::string shape = refusal([&] { checkpoint.tensor("lm_head.weight", {2, 4}); });
  EXPECT_NE(shape.find("has shape [2], but config.json implies [2, 4]"), std::string::npos) << shape;
}

TEST_F(CheckpointTest, SideFilesAreAllThatIsNotWeights) {
  write_tensors(model_ / "model.safetensors", {"a"});
  const std::vector<fs::path> carried = {
      "LICENSE",    "README.md",      "chat_template.jinja", "code/modeling.py",  "generation_config.json",
      "merges.txt", "tokenizer.json", "tokenizer.model",     "training_args.bin", "vocab.index.json"};
  const std::vector<fs::path> left = {"quantize_config.json",
                                      "model.safetensors.index.json.bak.gguf",
                                      "consolidated.safetensors",
                                      "pytorch_model.bin",
                                      "pytorch_model.bin.index.json",
                                      "consolidated.00.pth",
                                      "flax_model.msgpack",
                                      "tf_model.h5",
                                      "model-Q4.gguf",
                                      "onnx/model.onnx",
                                      "onnx/model.onnx_data",
                                      "original/params.json",
                                      ".gitattributes",
                                      ".cache/huggingface/x.metadata"};
  for (const auto* list : {&carried, &left}) {
    for (const fs::path& file : *list) {
      fs::create_directories((model_ / file).parent_path());
      write_file(model_ / file, file == "quantize_config.json" ? "{}" : "x");
    }
  }
  EXPECT_EQ(Checkpoint(model_).side_files(), carried);
}

TEST_F(CheckpointTest, FollowsTheLinksOfTheHubCache) {
  const fs::path blobs = folder_ / "blobs";
  write_tensors(blobs / "1111", {"a"});
  write_file(blobs / "2222", "{}");
  fs::create_symlink("../blobs/1111", model_ / "model.safetensors");
  fs::create_symlink("../blobs/2222", model_ / "tokenizer.json");
  fs::create_directory_symlink(model_, folder_ / "link");
  const Checkpoint checkpoint(folder_ / "link");
  EXPECT_TRUE(checkpoint.has("a"));
  EXPECT_EQ(checkpoint.side_files(), std::vector<fs::path>{"tokenizer.json"}) << "under its own name";
  fs::remove(blobs / "2222");
  const std::string message = refusal([&] { checkpoint.side_files(); });
  EXPECT_NE(message.find("tokenizer.json: a link to a file that is missing"), std::string::npos) << message;
}

TEST_F(CheckpointTest, LinksInARepositoryOfTheHubCacheAreSideFiles) {
  const fs::path repository = folder_ / "models--org--name", snapshot = repository / "snapshots/abcd";
  fs::create_directories(snapshot / "extra");
  fs::rename(model_ / "config.json", snapshot / "config.json");
  write_tensors(repository / "blobs/1111", {"a"});
  write_file(repository / "blobs/2222", "{}");
  fs::create_directories(repository / "snapshots/ef01");
  write_file(repository / "snapshots/ef01/merges.txt", "abc");
  fs::create_symlink("../../blobs/1111", snapshot / "model.safetensors");
  fs::create_symlink("../../blobs/2222", snapshot / "tokenizer.json");
  fs::create_symlink("../../../blobs/2222", snapshot / "extra/map.json");
  fs::create_symlink("../ef01/merges.txt", snapshot / "merges.txt");
  fs::create_symlink("tokenizer.json", snapshot / "same.json");
  const Checkpoint checkpoint(snapshot);
  const std::vector<fs::path> found = {"extra/map.json", "merges.txt", "same.json", "tokenizer.json"};
  EXPECT_EQ(checkpoint.side_files(), found);
  EXPECT_EQ(checkpoint.side_bytes(), 2U + 3 + 2 + 2);
}

TEST_F(CheckpointTest, LinksToFilesElsewhereAreRefused) {
  write_tensors(model_ / "model.safetensors", {"a"});
  fs::create_directories(folder_ / "models--other/blobs");
  write_file(folder_ / "models--other/blobs/1111", "secret");
  write_file(folder_ / "secret", "secret");
  for (const fs::path& target : {fs::path("/etc/passwd"), fs::path("/dev/zero"), fs::path("../secret"),
                                 folder_ / "models--other/blobs/1111", fs::path("chain")}) {
    fs::create_symlink(target, model_ / "readme.txt");
    if (target == "chain") fs::create_symlink("../secret", model_ / "chain");
    const std::string message = refusal([&] { Checkpoint(model_).side_files(); });
    EXPECT_NE(message.find(": a link out of the model's folder, to /"), std::string::npos) << message;
    EXPECT_NE(message.find("remove the link"), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    fs::remove(model_ / "readme.txt");
  }
}

TEST_F(CheckpointTest, PipesAndSocketsAreRefusedAtOnce) {
  write_tensors(model_ / "model.safetensors", {"a"});
  ASSERT_EQ(mkfifo((model_ / "pipe.txt").c_str(), 0600), 0);
  EXPECT_EQ(refusal([&] { Checkpoint(model_).side_bytes(); }),
            (model_ / "pipe.txt").string() +
                ": a pipe, which cannot be copied with the model; remove it from the model's folder");
  fs::remove(model_ / "pipe.txt");
  ASSERT_EQ(mknod((model_ / "talk").c_str(), S_IFSOCK | 0600, 0), 0);
  EXPECT_NE(refusal([&] { Checkpoint(model_).side_files(); }).find("talk: a socket"), std::string::npos);
  fs::rename(model_ / "talk", model_ / ".talk");
  EXPECT_EQ(Checkpoint(model_).side_files(), std::vector<fs::path>{}) << "hidden";
}

TEST_F(CheckpointTest, SideFilesAreMeasured) {
  write_tensors(model_ / "model.safetensors", {"a"});
  EXPECT_EQ(Checkpoint(model_).side_bytes(), 0U);
  write_file(model_ / "big.txt", "");
  fs::resize_file(model_ / "big.txt", uintmax_t{1} << 40);
  write_file(model_ / "small.txt", "abc");
  EXPECT_EQ(Checkpoint(model_).side_bytes(), (size_t{1} << 40) + 3);
}

TEST_F(CheckpointTest, LongNamesAreNotAmongTheNearest) {
  write_tensors(model_ / "model.safetensors", {std::string(150'000, 'x'), "model.norm"});
  const std::string message = refusal([&] { Checkpoint(model_).tensor("model.norm.weight"); });
  EXPECT_NE(message.find("nearest: model.norm"), std::string::npos) << message.substr(0, 500);
  EXPECT_LT(message.size(), 500U);
}

TEST_F(CheckpointTest, AFolderThatMayNotBeEnteredIsRefused) {
  write_tensors(model_ / "model.safetensors", {"a"});
  fs::permissions(folder_.path(), fs::perms::all);
  fs::permissions(model_, fs::perms::none);
  const std::string outcome = in_child([&] {
    become_nobody();
    const Checkpoint checkpoint(model_);
  });
  fs::permissions(model_, fs::perms::owner_all);
  EXPECT_EQ(outcome, "InputError: " + (model_ / "config.json").string() + ": cannot look at it (Permission denied)");
}

class CheckpointWriterTest : public CheckpointTest {
 protected:
  CheckpointWriterTest() { write_tensors(model_ / "model.safetensors", {"a"}); }

  // A model in an output folder.
  struct Output : OutputFolder {
    Output(const fs::path& output, const fs::path& source, Options options, const std::vector<TensorSpec>& specs,
           size_t max_shard)
        : OutputFolder(output, source, options) {
      check_room(CheckpointWriter::output_bytes(specs, max_shard));
      writer.emplace(model(), specs, max_shard);
    }
    void write(const std::string& tensor, const void* data, size_t bytes) { writer->write(tensor, data, bytes); }
    void finish() { writer->finish(); }
    void commit() {
      finish();
      EXPECT_EQ(put_in_place(), std::vector<std::string>());
    }
    std::optional<CheckpointWriter> writer;
  };
  // One with tensors a, b and c with two floats each.
  std::unique_ptr<Output> open(const fs::path& output, bool overwrite = false, size_t max_shard = 1 << 20,
                               bool resume = false) {
    return std::make_unique<Output>(output, model_, OutputFolder::Options{overwrite, resume}, specs_, max_shard);
  }
  static void fill(Output& output) {
    CheckpointWriter& writer = *output.writer;
    for (const char* name : {"c", "a", "b"}) {
      const float values[] = {static_cast<float>(name[0]), 1};
      writer.write(name, values, sizeof values);
    }
    writer.write_file("config.json", "{}");
  }
  void expect_refused(const fs::path& output, bool overwrite, const std::vector<std::string>& parts) {
    const std::vector<std::string> before = everything();
    const std::string message = refusal([&] { open(output, overwrite); });
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << "says '" << part << "': " << message;
    EXPECT_EQ(everything(), before) << "nothing was created or removed";
  }
  void expect_refused_but_cleared(const fs::path& output, const fs::path& left) {
    EXPECT_THROW(open(output), ExistsError);
    EXPECT_FALSE(fs::exists(left)) << "an earlier run had finished";
  }
  // All paths in the test's folder.
  std::vector<std::string> everything() const {
    std::vector<std::string> paths;
    for (const auto& entry : fs::recursive_directory_iterator(folder_.path())) paths.push_back(entry.path().string());
    std::sort(paths.begin(), paths.end());
    return paths;
  }

  std::vector<TensorSpec> specs_ = {{"b", "F32", {2}}, {"a", "F32", {2}}, {"c", "F32", {2}}};
  fs::path out_ = folder_ / "out";
};

TEST_F(CheckpointWriterTest, TheOutputIsAbsentUntilItIsWhole) {
  const auto writer = open(out_);
  fill(*writer);
  write_file(model_ / "tokenizer.json", std::string(3'000'000, 't'));
  writer->writer->copy_file(model_ / "tokenizer.json", "sub/folder/tokenizer.json");
  EXPECT_FALSE(fs::exists(out_));
  writer->commit();
  const Checkpoint written(out_);
  EXPECT_EQ(written.load(written.tensor("c")).row<float>(0)[0], 'c');
  EXPECT_EQ(written.tensors()[0]->name, "b") << "in the order given";
  const std::map<std::string, std::string> files = contents(out_);
  EXPECT_EQ(files.size(), 3U);
  EXPECT_EQ(files.at("config.json"), "{}");
  EXPECT_EQ(files.at("sub/folder/tokenizer.json"), read_file(model_ / "tokenizer.json"));
  EXPECT_EQ(files.at("model.safetensors").size(), writer->writer->output_bytes());
  for (const std::string& path : everything()) EXPECT_EQ(path.find("partial"), std::string::npos) << path;
}

TEST_F(CheckpointWriterTest, ShardsHoldAtMostTheLimitAndTheIndexNamesThem) {
  specs_.push_back({"large", "F32", {100}});
  specs_.push_back({"last", "F32", {2}});
  const auto writer = open(out_, false, 16);
  fill(*writer);
  writer->write("large", std::string(400, 'x').data(), 400);
  writer->write("last", std::string(8, 'x').data(), 8);
  writer->commit();
  EXPECT_EQ(read_file(out_ / "model.safetensors.index.json"), R"({
  "metadata": {
    "total_size": 432
  },
  "weight_map": {
    "a": "model-00001-of-00004.safetensors",
    "b": "model-00001-of-00004.safetensors",
    "c": "model-00002-of-00004.safetensors",
    "large": "model-00003-of-00004.safetensors",
    "last": "model-00004-of-00004.safetensors"
  }
}
)");
  const Checkpoint written(out_);
  EXPECT_EQ(written.tensors().size(), 5U);
  EXPECT_EQ(written.bytes(), 432U);
  EXPECT_EQ(written.load(written.tensor("a")).row<float>(0)[0], 'a');
}

TEST_F(CheckpointWriterTest, ATensorAboveTheLimitHasAShardOfItsOwn) {
  specs_ = {{"large", "F32", {100}}, {"a", "F32", {2}}};
  const auto writer = open(out_, false, 16);
  writer->write("large", std::string(400, 'x').data(), 400);
  writer->write("a", "12345678", 8);
  writer->writer->write_file("config.json", "{}");
  writer->commit();
  EXPECT_EQ(contents(out_).count("model-00002-of-00002.safetensors"), 1U);
  EXPECT_EQ(Checkpoint(out_).tensors()[0]->name, "large");
}

TEST_F(CheckpointWriterTest, WithoutCommitNothingStays) {
  const std::vector<std::string> before = everything();
  fill(*open(out_));
  EXPECT_EQ(everything(), before);
  fill(*open(folder_ / "new" / "parents" / "out"));
  EXPECT_EQ(everything(), before) << "the parents that it created are gone too";
  {
    const auto writer = open(out_);
    writer->write("a", "12345678", 8);
    EXPECT_THROW(writer->commit(), Error) << "tensors are missing";
  }
  EXPECT_EQ(everything(), before);
  const auto abandoned = open(out_);
  fill(*abandoned);
  EXPECT_TRUE(OutputFolder::leave(out_.string() + "/"));
  EXPECT_EQ(everything(), before) << "removed while its writer still lives";
  EXPECT_THROW(abandoned->put_in_place(), Cancelled);
}

TEST_F(CheckpointWriterTest, MissingParentsAreCreated) {
  const fs::path out = folder_ / "new" / "parents" / "out";
  const auto writer = open(out);
  fill(*writer);
  writer->commit();
  EXPECT_TRUE(Checkpoint(out).has("b"));
}

TEST_F(CheckpointWriterTest, AnExistingOutputIsReplacedOnlyWhenAskedAndOnlyWhenItIsAModel) {
  fs::create_directory(out_);
  expect_refused(out_, false, {out_.string(), "`overwrite`"});
  write_file(out_ / "thesis.txt", "years of work");
  expect_refused(out_, true, {out_.string(), "not a model folder"});
  write_file(folder_ / "file", "x");
  expect_refused(folder_ / "file", true, {(folder_ / "file").string(), "not a model folder"});
  fs::create_symlink("nowhere", folder_ / "dangling");
  expect_refused(folder_ / "dangling", true, {"dangling", "link"});

  write_file(out_ / "config.json", "{\"old\": true}");
  const auto writer = open(out_, true);
  fill(*writer);
  EXPECT_EQ(contents(out_).size(), 2U) << "the old one stays until the new one is whole";
  writer->commit();
  EXPECT_EQ(read_file(out_ / "config.json"), "{}");
  EXPECT_FALSE(fs::exists(out_ / "thesis.txt"));
  for (const std::string& path : everything()) EXPECT_EQ(path.find(".old"), std::string::npos) << path;

  fs::create_directory(folder_ / "empty");
  const auto into_empty = open(folder_ / "empty", true);
  fill(*into_empty);
  into_empty->commit();
  EXPECT_TRUE(Checkpoint(folder_ / "empty").has("a"));
}

TEST_F(CheckpointWriterTest, AnOutputBehindALinkIsReplacedWhereItLies) {
  fs::create_directory(folder_ / "disk");
  fs::create_directory_symlink(folder_ / "disk", out_);
  const auto writer = open(out_, true);
  fill(*writer);
  writer->commit();
  EXPECT_TRUE(fs::is_symlink(out_));
  EXPECT_TRUE(Checkpoint(folder_ / "disk").has("a"));
}

TEST_F(CheckpointWriterTest, AnOutputThatAppearsMeanwhileIsLeftAlone) {
  {
    const auto writer = open(out_);
    fill(*writer);
    fs::create_directory(out_);
    write_file(out_ / "theirs", "x");
    const std::string message = refusal([&] { writer->commit(); });
    EXPECT_NE(message.find("`overwrite`"), std::string::npos) << message;
  }
  EXPECT_EQ(contents(out_), (std::map<std::string, std::string>{{"theirs", "x"}}));
  for (const std::string& path : everything()) EXPECT_EQ(path.find("partial"), std::string::npos) << path;
}

TEST_F(CheckpointWriterTest, TheSourceIsNeverTheOutput) {
  fs::create_directory_symlink(model_, folder_ / "link");
  for (const fs::path& output : {model_, model_ / "out", model_ / "new" / "out", folder_.path(), folder_ / "link",
                                 folder_ / "link" / "out", model_ / ".." / "model", fs::path(model_.string() + "/")}) {
    expect_refused(output, true, {output.string(), "another folder than the model"});
  }
  expect_refused("", true, {"no output folder"});
  EXPECT_EQ(refusal([&] { open(folder_ / "model2"); }), "accepted") << "a longer name is another folder";
}

// A run that is killed: its destructors do not run, and the system drops its lock.
template <typename Body>
void killed(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
}

TEST_F(CheckpointWriterTest, WhatAKilledRunLeftIsNamedResumedOrRemoved) {
  killed([&] {
    const auto writer = open(out_);
    writer->write("a", "12345678", 8);
    writer->writer->write_file("config.json", "{}");
    write_file(writer->file("journal"), "a journal");
    writer->writer->flush();
    _exit(0);
  });
  const fs::path left = out_.string() + ".partial";
  EXPECT_TRUE(fs::exists(left / "model" / "model.safetensors"));
  expect_refused(out_, false, {left.string(), "ended early", "`resume`", "`overwrite`"});
  {
    const auto writer = open(out_, false, 1 << 20, true);
    EXPECT_TRUE(writer->continues());
    EXPECT_TRUE(writer->writer->keep({{"a", digest("12345678", 8)}}));
    EXPECT_FALSE(writer->writer->keep({{"b", digest("12345678", 8)}})) << "another content";
    EXPECT_FALSE(writer->writer->keep({{"z", 0}})) << "no such tensor";
    EXPECT_THROW(writer->write("a", "12345678", 8), Error) << "is written";
    EXPECT_THROW(writer->finish(), Error) << "b and c are not";
  }
  EXPECT_TRUE(fs::exists(left)) << "stays for another run";
  {
    const auto again = open(out_, false, 1 << 20, true);
    ASSERT_TRUE(again->writer->keep({{"a", digest("12345678", 8)}}));
    again->write("b", "abcdefgh", 8);
    again->write("c", "abcdefgh", 8);
    again->writer->write_file("config.json", "{\"second\": 1}");
    again->commit();
  }
  EXPECT_FALSE(fs::exists(left));
  EXPECT_EQ(read_file(out_ / "config.json"), "{\"second\": 1}");
  EXPECT_EQ(Checkpoint(out_).load(Checkpoint(out_).tensor("a")).bytes(), 8U);

  killed([&] {
    open(folder_ / "other");
    _exit(0);
  });
  const std::string other = (folder_ / "other").string();
  const auto anew = open(other, true);
  EXPECT_FALSE(anew->continues()) << "removed by overwrite";
}

TEST_F(CheckpointWriterTest, AnOutputOfAnotherLayoutIsWrittenAnew) {
  killed([&] {
    const auto writer = open(out_);
    writer->write("a", "12345678", 8);
    _exit(0);
  });
  specs_.push_back({"d", "F32", {2}});
  const auto writer = open(out_, false, 1 << 20, true);
  EXPECT_FALSE(writer->writer->keep({{"a", digest("12345678", 8)}}));
}

TEST_F(CheckpointWriterTest, OneRunWritesAnOutputAtATime) {
  const auto writer = open(out_);
  for (const bool overwrite : {false, true})
    expect_refused(out_, overwrite, {out_.string(), "another run is writing it"});
  EXPECT_THROW(open(out_, false, 1 << 20, true), ExistsError);
  fill(*writer);
  writer->commit();
}

TEST_F(CheckpointWriterTest, ForeignFilesBesideTheOutputAreNotTouched) {
  fs::create_directory(out_.string() + ".partial");
  write_file(out_.string() + ".partial/thesis.txt", "years of work");
  for (const bool overwrite : {false, true}) expect_refused(out_, overwrite, {".partial", "in the way"});
  fs::remove_all(out_.string() + ".partial");
  write_file(out_.string() + ".partial", "a file");
  expect_refused(out_, true, {".partial", "in the way"});
}

// The instants between the steps of a placement: what a killed run leaves there is cleared up by the next one.
TEST_F(CheckpointWriterTest, AKilledPlacementIsFinishedOrUndone) {
  const fs::path left = out_.string() + ".partial";
  const auto make_old = [&] {
    fs::remove_all(out_);
    fs::create_directory(out_);
    write_file(out_ / "config.json", "old");
  };
  const auto identity = [](const fs::path& path) {
    struct stat status {};
    stat(path.c_str(), &status);
    return cat(status.st_dev, ':', status.st_ino, '\n');
  };
  const auto kill_at_placement = [&](bool after_both_renames) {
    make_old();
    killed([&] {
      const auto writer = open(out_, true);
      fill(*writer);
      writer->finish();
      write_file(left / "placing", identity(left / "model"));
      fs::rename(out_, left / "old");
      if (after_both_renames) fs::rename(left / "model", out_);
      _exit(0);
    });
  };
  // Killed after the exchange: the old output is inside.
  kill_at_placement(true);
  expect_refused_but_cleared(out_, left);
  EXPECT_EQ(read_file(out_ / "config.json"), "{}") << "the new one";
  // Killed between two renames, where folders cannot be exchanged: the old output comes back.
  kill_at_placement(false);
  EXPECT_THROW(open(out_), ExistsError);
  EXPECT_EQ(read_file(out_ / "config.json"), "old");
  const auto resumed = open(out_, true, 1 << 20, true);
  EXPECT_TRUE(resumed->writer->keep({{"a", digest(std::array{static_cast<float>('a'), 1.0F}.data(), 8)}}));
}

TEST_F(CheckpointWriterTest, TooLittleSpaceIsSaidBeforeAnythingIsWritten) {
  specs_.push_back({"huge", "U8", {int64_t{1} << 60}});
  expect_refused(folder_ / "new" / "out", false, {"needs 1152921504606", "bytes, but its disk has ", " free"});
}

TEST_F(CheckpointWriterTest, ADiskThatFillsUpLeavesNothing) {
  const std::vector<std::string> before = everything();
  specs_.push_back({"large", "U8", {100'000}});
  const std::string at_open = in_child([&] {
    limit_file_size(50'000);
    open(folder_ / "new" / "out");
  });
  EXPECT_EQ(at_open.rfind("InputError: ", 0), 0U) << at_open;
  EXPECT_NE(at_open.find("model.safetensors: cannot write it"), std::string::npos) << at_open;
  EXPECT_NE(at_open.find("bytes are needed"), std::string::npos) << at_open;
  EXPECT_EQ(everything(), before);

  specs_.pop_back();
  write_file(model_ / "tokenizer.json", std::string(100'000, 't'));
  const std::vector<std::string> with_tokenizer = everything();
  for (const bool copied : {true, false}) {
    const std::string later = in_child([&] {
      limit_file_size(50'000);
      const auto writer = open(out_);
      fill(*writer);
      if (copied) writer->writer->copy_file(model_ / "tokenizer.json", "tokenizer.json");
      writer->writer->write_file("tokenizer.json", std::string(100'000, 't'));
    });
    EXPECT_EQ(later.rfind("InputError: ", 0), 0U) << later;
    EXPECT_NE(later.find("tokenizer.json: cannot write it"), std::string::npos) << later;
    EXPECT_EQ(everything(), with_tokenizer);
  }
}

TEST_F(CheckpointWriterTest, PlacesThatMayNotBeWrittenAreRefusedInOneSentence) {
  fs::permissions(folder_.path(), fs::perms::owner_all | fs::perms::others_read | fs::perms::others_exec);
  if (geteuid() != 0) fs::permissions(folder_.path(), fs::perms::owner_read | fs::perms::owner_exec);
  for (const fs::path& output : {out_, folder_ / "new" / "out"}) {
    const std::vector<std::string> before = everything();
    const std::string outcome = in_child([&] {
      become_nobody();
      open(output);
    });
    EXPECT_EQ(outcome.rfind("InputError: " + folder_.path().string(), 0), 0U) << outcome;
    EXPECT_NE(outcome.find("cannot create it (Permission denied)"), std::string::npos) << outcome;
    EXPECT_EQ(everything(), before);
  }
  fs::permissions(folder_.path(), fs::perms::owner_all);
}

TEST_F(CheckpointWriterTest, AnOldOutputThatCannotBeMovedStays) {
  fs::create_directories(out_);
  write_file(out_ / "config.json", "old");
  // In a sticky parent a user can create folders, but not move those of others.
  fs::permissions(folder_.path(), fs::perms::all | fs::perms::sticky_bit);
  if (geteuid() != 0) GTEST_SKIP() << "needs a second user, which only root may become";
  const std::vector<std::string> before = everything();
  const std::string outcome = in_child([&] {
    become_nobody();
    const auto writer = open(out_, true);
    fill(*writer);
    writer->commit();
  });
  EXPECT_NE(outcome.find("cannot put the finished model in place"), std::string::npos) << outcome;
  EXPECT_EQ(everything(), before);
  EXPECT_EQ(read_file(out_ / "config.json"), "old");
}

TEST_F(CheckpointWriterTest, AWriterHoldsItsCallerToTheLayout) {
  const auto writer = open(out_);
  EXPECT_THROW(writer->write("d", "12345678", 8), Error);
  specs_.push_back(specs_.front());
  EXPECT_THROW(open(folder_ / "other", false, 8), Error) << "one name twice, in two shards";
  EXPECT_FALSE(fs::exists(folder_ / "other"));
}

}  // namespace
}  // namespace gptq
