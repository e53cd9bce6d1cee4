// What a checkpoint's tensors decide beyond its config.json: the head, and where the embedding is.
#include <cmath>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "base/error.h"
#include "model/model.h"
#include "tiny_model.h"

namespace gptq {
namespace {

using testing_model::TinyTensor;

class HeadTest : public ::testing::Test {
 protected:
  HeadTest() { config_["tie_word_embeddings"] = true; }

  TinyTensor& tensor(const std::string& name) {
    return *std::find_if(tensors_.begin(), tensors_.end(), [&](const TinyTensor& t) { return t.spec.name == name; });
  }
  void erase(const std::string& name) { tensors_.erase(tensors_.begin() + (&tensor(name) - tensors_.data())); }
  void rename(const std::string& name, const std::string& other) { tensor(name).spec.name = other; }

  ModelConfig parse() {
    testing_model::write_model(folder_ / "model", config_, tensors_);
    return parse_model_config(Checkpoint(folder_ / "model"));
  }

  // The logits of a few tokens.
  std::vector<float> logits() {
    testing_model::write_model(folder_ / "model", config_, tensors_);
    const Checkpoint checkpoint(folder_ / "model");
    const auto backend = open_backend("cpu");
    Model model(checkpoint, *backend, DType::f32);
    Batch batch = model.embed(std::vector<std::vector<int32_t>>{{3, 1, 4, 1, 5}});
    for (int64_t block = 0; block < model.config().blocks; ++block) model.forward(model.load_block(block), batch);
    const Matrix result = model.output_head().logits(batch, 0, batch.tokens());
    return to_host<float>(*backend, result);
  }

  TemporaryFolder folder_;
  Json config_ = testing_model::tiny_config();
  std::vector<TinyTensor> tensors_ = testing_model::tiny_tensors();
};

TEST_F(HeadTest, AStoredHeadThatDiffersFromATiedEmbeddingIsTheHead) {
  const ModelConfig config = parse();
  EXPECT_FALSE(config.tied_embeddings);
  ASSERT_EQ(config.warnings.size(), 1U);
  for (const char* part : {"tie_word_embeddings", "'lm_head.weight'", "'model.embed_tokens.weight'"})
    EXPECT_NE(config.warnings[0].find(part), std::string::npos) << config.warnings[0];
  const std::vector<float> tied = logits();
  config_["tie_word_embeddings"] = false;
  EXPECT_EQ(tied, logits());
  EXPECT_TRUE(parse().warnings.empty());
}

TEST_F(HeadTest, AStoredHeadThatEqualsATiedEmbeddingIsTied) {
  tensor("lm_head.weight").values = tensor("model.embed_tokens.weight").values;
  EXPECT_TRUE(parse().tied_embeddings);
  EXPECT_TRUE(parse().warnings.empty());
  tensor("lm_head.weight").values.back() += 1;  // as after a resize
  EXPECT_FALSE(parse().tied_embeddings);
}

TEST_F(HeadTest, TheSameHoldsInsideAWrapper) {
  for (const bool outside : {true, false}) {
    Json inner = testing_model::tiny_config();
    if (outside)
      inner.erase("tie_word_embeddings");
    else
      inner["tie_word_embeddings"] = true;
    config_ = {{"model_type", "llava"}, {"text_config", inner}, {"vision_config", {{"hidden_size", 5}}}};
    if (outside) config_["tie_word_embeddings"] = true;
    tensors_ = testing_model::tiny_tensors();
    for (TinyTensor& tensor : tensors_) tensor.spec.name = "language_model." + tensor.spec.name;
    const ModelConfig config = parse();
    EXPECT_EQ(config.head, "language_model.lm_head");
    EXPECT_FALSE(config.tied_embeddings);
    ASSERT_EQ(config.warnings.size(), 1U);
    EXPECT_NE(config.warnings[0].find("'language_model.lm_head.weight'"), std::string::npos) << config.warnings[0];
  }
}

TEST_F(HeadTest, ATiedPairMayBeStoredUnderTheNameOfTheHead) {
  erase("lm_head.weight");
  const std::vector<float> as_embedding = logits();
  rename("model.embed_tokens.weight", "lm_head.weight");
  EXPECT_EQ(logits(), as_embedding);
  EXPECT_TRUE(parse().tied_embeddings);
}

TEST_F(HeadTest, AModelWithoutAHeadIsReadUpToItsHead) {
  config_["tie_word_embeddings"] = false;
  erase("lm_head.weight");
  const ModelConfig config = parse();
  EXPECT_FALSE(config.has_head);
  ASSERT_EQ(config.warnings.size(), 1U);
  try {
    logits();
    ADD_FAILURE() << "computed";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("tie_word_embeddings"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("'lm_head.weight'"), std::string::npos) << error.what();
  }
}

TEST_F(HeadTest, NormsMayBeDoubles) {
  config_["tie_word_embeddings"] = false;
  const std::vector<float> plain = logits();
  // Of twice the bytes: the writer takes them as they are.
  TinyTensor& norm = tensor("model.norm.weight");
  std::vector<double> doubles(norm.values.begin(), norm.values.end());
  norm.spec.dtype = "F64";
  norm.values.resize(2 * doubles.size());
  std::memcpy(norm.values.data(), doubles.data(), doubles.size() * sizeof(double));
  EXPECT_EQ(logits(), plain);
}

}  // namespace
}  // namespace gptq
