// Counts of config.json that the tensors of the checkpoint do not have.
#include <gtest/gtest.h>

#include "base/error.h"
#include "model/architecture.h"
#include "tiny_model.h"

namespace gptq {
namespace {

using namespace testing_model;  // NOLINT: helpers of the fixture

// The tensors of a checkpoint; their values do not matter.
using Shapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;

Shapes tiny_shapes() {
  Shapes shapes;
  for (const TinyTensor& tensor : tiny_tensors()) shapes.emplace_back(tensor.spec.name, tensor.spec.shape);
  return shapes;
}

// Two blocks with three experts each.
Shapes mixtral_shapes() {
  Shapes shapes = {{"model.embed_tokens.weight", {128, 64}}};
  for (const std::string& block : {std::string("model.layers.0."), std::string("model.layers.1.")}) {
    shapes.push_back({block + "block_sparse_moe.gate.weight", {3, 64}});
    for (int expert = 0; expert < 3; ++expert) {
      for (const char* name : {".w1.weight", ".w2.weight", ".w3.weight"})
        shapes.push_back({cat(block, "block_sparse_moe.experts.", expert, name), {1}});
    }
  }
  return shapes;
}

Json mixtral_config(int64_t experts) {
  Json config = tiny_config();
  config["model_type"] = "mixtral";
  config["num_local_experts"] = experts;
  config["num_experts_per_tok"] = 2;
  return config;
}

class ConfigChecks : public testing::Test {
 protected:
  // What is wrong about this config.json for these tensors; empty if nothing.
  std::string refusal(const Json& config, const Shapes& shapes) {
    std::vector<TinyTensor> tensors;
    for (const auto& [name, shape] : shapes) {
      tensors.push_back({{name, "F32", shape}, {}});
      tensors.back().values.resize(tensors.back().spec.bytes() / sizeof(float));
    }
    fs::remove_all(folder_ / "model");
    write_model(folder_ / "model", config, tensors);
    try {
      parse_model_config(Checkpoint(folder_ / "model"));
    } catch (const InputError& error) {
      const std::string message = error.what();
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      const std::string file = (folder_ / "model/config.json").string() + ": ";
      return message.starts_with(file) ? message.substr(file.size()) : message;
    }
    return {};
  }
  TemporaryFolder folder_;
};

Json changed(const std::string& key, const Json& value) {
  Json config = tiny_config();
  config[key] = value;
  return config;
}

TEST_F(ConfigChecks, ACheckpointThatHasAllIsAccepted) {
  EXPECT_EQ(refusal(tiny_config(), tiny_shapes()), "");
  EXPECT_EQ(refusal(changed("num_hidden_layers", 1), tiny_shapes()), "") << "others are ignored";
  EXPECT_EQ(refusal(mixtral_config(3), mixtral_shapes()), "");
}

TEST_F(ConfigChecks, TheEmbeddingHasTheVocabularyAndTheHiddenSize) {
  EXPECT_EQ(refusal(changed("vocab_size", 1'000'000'000), tiny_shapes()),
            "'vocab_size' is 1000000000, but tensor 'model.embed_tokens.weight' has shape [128, 64], where "
            "[1000000000, 64] is needed");
  EXPECT_EQ(
      refusal(changed("hidden_size", 80), tiny_shapes()),
      "'hidden_size' is 80, but tensor 'model.embed_tokens.weight' has shape [128, 64], where [128, 80] is needed");
}

TEST_F(ConfigChecks, LearnedPositionsAreCounted) {
  const Json config = {{"model_type", "gpt2"},         {"n_embd", 64},     {"n_head", 4}, {"n_layer", 1},
                       {"n_positions", 1'000'000'000}, {"vocab_size", 128}};
  const Shapes shapes = {{"transformer.wte.weight", {128, 64}}, {"transformer.wpe.weight", {32, 64}}};
  EXPECT_EQ(refusal(config, shapes),
            "'n_positions' is 1000000000, but tensor 'transformer.wpe.weight' has shape [32, 64], where "
            "[1000000000, 64] is needed");
}

TEST_F(ConfigChecks, EveryBlockHasTensors) {
  EXPECT_EQ(
      refusal(changed("num_hidden_layers", 10'000), tiny_shapes()),
      cat("'num_hidden_layers' is 10000, but ", (folder_ / "model").string(), " has no tensors of model.layers.2"));
  Shapes gap = tiny_shapes();
  for (auto& [name, shape] : gap) {
    if (name.starts_with("model.layers.1.")) name.replace(0, 15, "model.layers.9999.");
  }
  const std::string message = refusal(changed("num_hidden_layers", 10'000), gap);
  EXPECT_NE(message.find("no tensors of model.layers.1"), std::string::npos) << message;
}

TEST_F(ConfigChecks, NamesWithoutAnIndexAreOfNoBlock) {
  for (const char* name : {"model.layers.1", "model.layers..x", "model.layers.-1.x", "model.layers.x.y",
                           "model.layers.99999999999999999999.x", "model.layers.1x.y"}) {
    const std::string message = refusal(changed("num_hidden_layers", 3), [&] {
      Shapes shapes = tiny_shapes();
      shapes.push_back({name, {2}});
      return shapes;
    }());
    EXPECT_NE(message.find("no tensors of model.layers.2"), std::string::npos) << message;
  }
}

TEST_F(ConfigChecks, TheRouterHasTheExperts) {
  EXPECT_EQ(
      refusal(mixtral_config(4), mixtral_shapes()),
      "'num_local_experts' is 4, but tensor 'model.layers.0.block_sparse_moe.gate.weight' has shape [3, 64], where "
      "[4, 64] is needed");
  Shapes nothing = mixtral_shapes();
  nothing[1].second = {65'536, 0};
  const std::string message = refusal(mixtral_config(65'536), nothing);
  EXPECT_NE(message.find("has shape [65536, 0], where [65536, 64] is needed"), std::string::npos)
      << "a router without data: " << message;
}

TEST_F(ConfigChecks, ExpertsOfTheirOwnHaveTensors) {
  Shapes fewer = mixtral_shapes();
  std::erase_if(fewer, [](const auto& tensor) {
    return tensor.first.find("layers.1.block_sparse_moe.experts.2") != std::string::npos;
  });
  EXPECT_EQ(refusal(mixtral_config(3), fewer), "'num_local_experts' is 3, but model.layers.1 has tensors of 2 experts");
}

}  // namespace
}  // namespace gptq
