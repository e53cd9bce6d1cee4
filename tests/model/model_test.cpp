// Whole models, compared with transformers (tests/golden/models, made by its make.py), and invalid models.
#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/error.h"
#include "golden_families.h"
#include "tensor/nonfinite.h"
#include "tiny_model.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;
using testing_model::TemporaryFolder;
using testing_model::test_name;
using testing_model::TinyOptions;
using testing_model::TinyTensor;

using Sequences = std::vector<std::vector<int32_t>>;

// A golden folder: the model and the results of transformers.
struct Golden {
  explicit Golden(const fs::path& folder) : checkpoint(folder), file(folder / "golden.safetensors") {
    for (const StoredTensor& tensor : file.tensors()) answers.emplace(tensor.name, file.load(tensor));
    const ConstMatrixView ids = answers.at("input_ids");
    for (int64_t s = 0; s < ids.rows; ++s) {
      sequences.emplace_back(ids.row<int32_t>(s), ids.row<int32_t>(s) + ids.cols);
    }
  }

  Checkpoint checkpoint;
  SafetensorsFile file;
  std::map<std::string, Matrix> answers;
  Sequences sequences;
};

// "models/plain", "families/qwen2", ...
std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const char* set : {"models", "families"}) {
    if (!fs::exists(fs::path(GPTQ_GOLDEN) / set)) continue;
    for (const auto& entry : fs::directory_iterator(fs::path(GPTQ_GOLDEN) / set)) {
      if (entry.is_directory()) names.push_back(cat(set, "/", entry.path().filename().string()));
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

ConstMatrixView advance(Model& model, const Block& block, int64_t step, Batch& batch) {
  model.enter(block, step, batch);
  return model.input(block, step, batch);
}

std::vector<float> values(Backend& backend, ConstMatrixView matrix) {
  Matrix single(backend, DType::f32, matrix.rows, matrix.cols);
  backend.run(ops::Convert{.x = matrix, .y = single});
  return to_host<float>(backend, single);
}

// The largest difference, in units of the golden rows' root mean square.
double difference(const std::vector<float>& got, ConstMatrixView golden, int64_t first_row = 0) {
  const size_t cols = static_cast<size_t>(golden.cols), rows = got.size() / cols;
  EXPECT_EQ(got.size(), rows * cols);
  EXPECT_LE(first_row + static_cast<int64_t>(rows), golden.rows);
  double largest = 0, squares = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double want = golden.row<float>(first_row)[i];
    if (!std::isfinite(got[i])) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, std::abs(want - static_cast<double>(got[i])));
    squares += want * want;
  }
  return largest / std::sqrt(squares / static_cast<double>(got.size()));
}

// Whether the state of a mixer passes from token to token: in a state space or the delta rule.
bool is_recurrent(const ModelConfig& config) { return config.delta.taps > 0 || config.state_space.heads > 0; }

// A sum of K products in f32 has an error of about sqrt(K) roundings of its size. A block chains eight such sums, ten
// with latents and experts, 18 with a state space, whose terms have four factors, both sides round, and the largest of
// some hundred errors is at four standard deviations: sqrt(2 * 8 * blocks * K) * 4. The state of a recurrent mixer adds
// up the roundings of all tokens before, which are independent: sqrt(tokens) times as large.
double limit(const ModelConfig& config, int64_t blocks, double rounding) {
  const auto inner =
      static_cast<double>(std::max({config.hidden, config.intermediate, config.heads * config.head_dim}));
  const double sums = config.state_space.heads > 0 ? 18 : config.experts.count > 0 ? 10 : 8;
  constexpr double kTokens = 14;  // of a golden sequence
  const double growth = is_recurrent(config) ? std::sqrt(kTokens) : 1;
  return 4 * growth * std::sqrt(2 * sums * static_cast<double>(blocks) * inner) * rounding;
}

// Runs all blocks and compares each block's output and the logits.
void compare_with_golden(const Golden& golden, DType dtype, double rounding, const std::string& device = "cpu") {
  const auto backend = open_backend(device);
  Model model(golden.checkpoint, *backend, dtype);
  Batch batch = model.embed(golden.sequences);
  double worst = 0, allowed = 0;
  const auto check = [&](const std::string& what, const std::vector<float>& got, int64_t blocks) {
    allowed = limit(model.config(), blocks, rounding);
    const double found = difference(got, golden.answers.at(what));
    worst = std::max(worst, found);
    EXPECT_LE(found, allowed) << what;
  };
  for (int64_t i = 0; i < model.config().blocks; ++i) {
    model.forward(model.load_block(i), batch);
    EXPECT_TRUE(batch.input.empty());
    check(cat("block.", i), values(*backend, batch.hidden(model.config().hidden)), i + 1);
  }
  const Matrix logits = model.output_head().logits(batch, 0, batch.tokens());
  check("logits", values(*backend, logits), model.config().blocks + 1);
  testing::Test::RecordProperty("worst", cat(worst));
  testing::Test::RecordProperty("allowed", cat(allowed));
}

class GoldenModel : public testing::TestWithParam<std::string> {
 protected:
  fs::path folder() const { return fs::path(GPTQ_GOLDEN) / GetParam(); }
};

TEST_P(GoldenModel, BlocksAndLogitsEqualTransformers) {
  const Golden golden(folder());
  compare_with_golden(golden, DType::f32, 0x1p-24);
}

TEST_P(GoldenModel, LossEqualsTransformers) {
  const Golden golden(folder());
  const auto backend = open_backend("cpu");
  Model model(golden.checkpoint, *backend, DType::f32);
  Batch batch = model.embed(golden.sequences);
  for (int64_t i = 0; i < model.config().blocks; ++i) model.forward(model.load_block(i), batch);
  double sum = 0;
  int64_t count = 0;
  for (size_t s = 0; s < golden.sequences.size(); ++s) {
    const std::vector<int32_t>& ids = golden.sequences[s];
    const auto predicted = static_cast<int64_t>(ids.size()) - 1;
    const Matrix logits = model.output_head().logits(batch, batch.offsets[s], predicted);  // some of the rows
    const std::vector<float> rows = to_host<float>(*backend, logits);
    for (int64_t t = 0; t < predicted; ++t, ++count) {
      const float* row = rows.data() + t * logits.cols();
      double exponentials = 0;
      for (int64_t v = 0; v < logits.cols(); ++v) exponentials += std::exp(static_cast<double>(row[v]));
      sum += std::log(exponentials) - static_cast<double>(row[ids[static_cast<size_t>(t) + 1]]);
    }
  }
  const double want = golden.answers.at("loss").row<float>(0)[0];
  EXPECT_NEAR(sum / static_cast<double>(count), want, want * 1e-6);
}

// A rounding that changes the experts of a token changes everything after it, and a recurrent mixer sums terms of both
// signs over all tokens before, whose roundings the norm of its output magnifies: in 16 bits transformers is off by
// more.
bool magnifies_roundings(const Checkpoint& checkpoint) {
  const ModelConfig config = parse_model_config(checkpoint);
  return config.experts.count > 0 || is_recurrent(config);
}

// In 16 bits every stored value is rounded once and sums are in f32, so the roundings of a sum's K terms average out: a
// quarter of the limit, one standard deviation, suffices. The error of a wrong formula is of the size of the values.
TEST_P(GoldenModel, SixteenBitArithmeticStaysNear) {
  const Golden golden(folder());
  if (magnifies_roundings(golden.checkpoint)) return;
  compare_with_golden(golden, DType::f16, 0x1p-11 / 4);
  compare_with_golden(golden, DType::bf16, 0x1p-8 / 4);
}

// All families and dtypes on the GPU.
TEST(GpuModels, EqualTransformers) {
  try {
    open_backend("cuda:0");
  } catch (const InputError& error) {
    GTEST_SKIP() << error.what();
  }
  for (const std::string& name : golden_names()) {
    SCOPED_TRACE(name);
    const Golden golden(fs::path(GPTQ_GOLDEN) / name);
    compare_with_golden(golden, DType::f32, 0x1p-24, "cuda:0");
    if (magnifies_roundings(golden.checkpoint)) continue;
    compare_with_golden(golden, DType::f16, 0x1p-11 / 4, "cuda:0");
    compare_with_golden(golden, DType::bf16, 0x1p-8 / 4, "cuda:0");
  }
}

// Causality: the beginning of a sequence gives the same rows in any batch. Lengths may differ unless rope depends on
// them.
TEST_P(GoldenModel, RaggedBatchesGiveEachSequenceItsOwnRows) {
  const Golden golden(folder());
  const auto backend = open_backend("cpu");
  Model model(golden.checkpoint, *backend, DType::f32);
  Sequences ragged = golden.sequences;
  std::swap(ragged[0], ragged[1]);
  ragged[0].resize(5);
  if (depends_on_length(model.config())) {
    EXPECT_THROW(model.embed(ragged), InputError);
    return;
  }
  Batch batch = model.embed(ragged);
  const auto length = static_cast<int64_t>(golden.sequences[0].size());
  EXPECT_EQ(batch.offsets, (std::vector<int64_t>{0, 5, 5 + length}));
  model.forward(model.load_block(0), batch);
  const double allowed = limit(model.config(), 1, 0x1p-24);
  const ConstMatrixView rows = batch.hidden(model.config().hidden), want = golden.answers.at("block.0");
  EXPECT_LE(difference(values(*backend, rows.row_range(0, 5)), want, length), allowed);
  EXPECT_LE(difference(values(*backend, rows.row_range(5, length)), want, 0), allowed);
}

// Rope tables are cached between batches, but not used for lengths that they do not fit.
TEST_P(GoldenModel, EarlierBatchesOfOtherLengthsLeaveNoTrace) {
  const Golden golden(folder());
  const auto backend = open_backend("cpu");
  const auto first_block = [&](Model& model, size_t length) {
    Sequences sequences = golden.sequences;
    for (std::vector<int32_t>& sequence : sequences) sequence.resize(length);
    Batch batch = model.embed(sequences);
    model.forward(model.load_block(0), batch);
    return values(*backend, batch.hidden(model.config().hidden));
  };
  const size_t whole = golden.sequences[0].size();
  Model used(golden.checkpoint, *backend, DType::f32);
  for (const size_t length : {size_t{6}, whole, size_t{7}}) {
    Model fresh(golden.checkpoint, *backend, DType::f32);
    EXPECT_EQ(first_block(used, length), first_block(fresh, length)) << length;
  }
}

// Weights from a reader, as for a quantized checkpoint, and the names that it is asked for.
TEST_P(GoldenModel, AReaderReplacesTheWeightsOfLinears) {
  const Golden golden(folder());
  const auto backend = open_backend("cpu");
  std::vector<std::string> asked;
  const auto reader = [&](const LinearSpec& spec) -> PlaceWeight {
    asked.push_back(spec.name);
    if (spec.transposed || spec.matrix_index >= 0) return nullptr;  // falls back to the checkpoint
    const auto stored =
        std::make_shared<Matrix>(golden.checkpoint.load(golden.checkpoint.tensor(spec.name + ".weight")));
    return [stored](Backend& device, DType dtype) {
      const Matrix uploaded = to_device(device, stored->dtype(), stored->rows(), stored->cols(), stored->view().data);
      Matrix weight(device, dtype, stored->rows(), stored->cols());
      device.run(ops::Convert{.x = uploaded, .y = weight});
      return weight;
    };
  };
  Model model(golden.checkpoint, *backend, DType::f32, reader);
  Batch batch = model.embed(golden.sequences);
  model.forward(model.load_block(0), batch);
  EXPECT_LE(difference(values(*backend, batch.hidden(model.config().hidden)), golden.answers.at("block.0")),
            limit(model.config(), 1, 0x1p-24));
  std::vector<std::string> specs;
  for (const auto& step : step_specs(model.config(), 0)) {
    for (const LinearSpec& spec : step) specs.push_back(spec.name);
  }
  EXPECT_EQ(asked, specs);
}

// Rebuilt inputs have the same bits as kept ones, and so has the output of the block.
TEST_P(GoldenModel, RebuiltInputsHaveTheBitsOfKeptOnes) {
  const Golden golden(folder());
  const auto backend = open_backend("cpu");
  Model model(golden.checkpoint, *backend, DType::f32);
  if (!can_rebuild_inputs(model.config())) return;  // not used
  Batch kept = model.embed(golden.sequences), rebuilt = model.embed(golden.sequences);
  for (int64_t i = 0; i < std::min<int64_t>(model.config().blocks, 2); ++i) {
    const Block block = model.load_block(i);
    const auto steps = static_cast<int64_t>(block.steps.size());
    for (int64_t step = 0; step < steps; ++step) {
      model.rebuild_input(block, step, rebuilt);
      EXPECT_EQ(values(*backend, advance(model, block, step, kept)),
                values(*backend, advance(model, block, step, rebuilt)));
      rebuilt.input = Matrix();
    }
    model.rebuild_input(block, steps, rebuilt);
    model.finish(block, kept);
    model.finish(block, rebuilt);
    EXPECT_EQ(values(*backend, kept.residual), values(*backend, rebuilt.residual));
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, GoldenModel, testing::ValuesIn(golden_names()), test_name);

// Every row of the table must have a golden result of transformers.
TEST(GoldenFolders, EveryRowHasOne) {
  std::set<const Architecture*> proven;
  std::set<std::string> model_types;
  for (const std::string& name : golden_names()) {
    const ModelConfig config = parse_model_config(Checkpoint(fs::path(GPTQ_GOLDEN) / name));
    proven.insert(config.architecture);
    model_types.insert(config.model_type);
  }
  for (const Architecture& row : architectures())
    EXPECT_EQ(proven.count(&row), 1U) << row.model_types[0] << ": " << row.models;
  EXPECT_GE(model_types.size(), 55U);
}

// A block can be entered at every step, and each step's input has the width of its linears.
TEST(Model, AdvancesStepByStepToTheWidthsOfStepSpecs) {
  const Golden golden(fs::path(GPTQ_GOLDEN) / "models" / "biases");
  const auto backend = open_backend("cpu");
  Model model(golden.checkpoint, *backend, DType::f32);
  Batch batch = model.embed(golden.sequences);
  const Block block = model.load_block(0);
  const auto specs = step_specs(model.config(), 0);
  ASSERT_EQ(block.steps.size(), specs.size());
  for (size_t step = 0; step < specs.size(); ++step) {
    const ConstMatrixView input = advance(model, block, static_cast<int64_t>(step), batch);
    EXPECT_EQ(input.rows, batch.tokens());
    EXPECT_EQ(input.cols, specs[step][0].in_features);
    ASSERT_EQ(block.steps[step].linears.size(), specs[step].size());
    for (size_t i = 0; i < specs[step].size(); ++i) {
      const Linear& linear = block.steps[step].linears[i];
      EXPECT_EQ(linear.name, specs[step][i].name);
      EXPECT_EQ(linear.weight.rows(), specs[step][i].out_features);
      EXPECT_EQ(linear.weight.cols(), specs[step][i].in_features);
      EXPECT_EQ(linear.bias.cols(), specs[step][i].bias ? specs[step][i].out_features : 0);
    }
  }
  model.finish(block, batch);
  EXPECT_TRUE(batch.input.empty());
  EXPECT_LE(difference(values(*backend, batch.hidden(model.config().hidden)), golden.answers.at("block.0")),
            limit(model.config(), 1, 0x1p-24));
}

TEST(Model, LogitsNeedNoEmbeddingLookedUpBefore) {
  const Golden golden(fs::path(GPTQ_GOLDEN) / "models" / "tied");
  const auto backend = open_backend("cpu");
  Model first(golden.checkpoint, *backend, DType::f32), second(golden.checkpoint, *backend, DType::f32);
  Batch batch = first.embed(golden.sequences);
  for (int64_t i = 0; i < first.config().blocks; ++i) first.forward(first.load_block(i), batch);
  const double allowed = limit(first.config(), first.config().blocks + 1, 0x1p-24);
  EXPECT_LE(difference(values(*backend, second.output_head().logits(batch, 3, 4)), golden.answers.at("logits"), 3),
            allowed);
}

// Changes a tiny model before it is written, and opens it.
class BrokenModel : public testing::Test {
 protected:
  // The error of Model's constructor or of loading; empty if there is none.
  std::string constructor_message() {
    return message_of([&](const Checkpoint& checkpoint, Backend& backend) { Model(checkpoint, backend, DType::f32); });
  }
  std::string loading_message() {
    return message_of([&](const Checkpoint& checkpoint, Backend& backend) {
      Model model(checkpoint, backend, DType::f32);
      Batch batch = model.embed(Sequences{{0, static_cast<int32_t>(model.config().vocabulary) - 1}});
      for (int64_t i = 0; i < model.config().blocks; ++i) model.forward(model.load_block(i), batch);
      model.output_head().logits(batch, 0, 1);
    });
  }
  TinyTensor& tensor(const std::string& name) {
    const auto found =
        std::find_if(tensors_.begin(), tensors_.end(), [&](const TinyTensor& t) { return t.spec.name == name; });
    if (found == tensors_.end()) throw Error("no tensor " + name);
    return *found;
  }
  void erase(const std::string& name) {
    std::erase_if(tensors_, [&](const TinyTensor& tensor) { return tensor.spec.name == name; });
  }

  Json config_ = testing_model::tiny_config();
  std::vector<TinyTensor> tensors_ = testing_model::tiny_tensors();

 private:
  template <typename Function>
  std::string message_of(const Function& function) {
    const TemporaryFolder folder;
    testing_model::write_model(folder / "model", config_, tensors_);
    const Checkpoint checkpoint(folder / "model");
    const auto backend = open_backend("cpu");
    try {
      function(checkpoint, *backend);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(BrokenModel, NothingIsSaidOfASoundOne) { EXPECT_EQ(loading_message(), ""); }

TEST_F(BrokenModel, EveryTensorIsMissedBeforeAnythingIsRead) {
  const std::vector<TinyTensor> all = tensors_;
  for (const TinyTensor& missing : all) {
    tensors_ = all;
    erase(missing.spec.name);
    if (missing.spec.name == "lm_head.weight") continue;  // which only losses need
    EXPECT_NE(constructor_message().find(missing.spec.name), std::string::npos) << missing.spec.name;
  }
}

TEST_F(BrokenModel, EveryShapeIsCheckedBeforeAnythingIsRead) {
  const std::vector<TinyTensor> all = tensors_;
  for (size_t i = 0; i < all.size(); ++i) {
    tensors_ = all;
    TinyTensor& changed = tensors_[i];
    changed.spec.shape[0] += 1;
    changed.values.resize(changed.spec.bytes() / sizeof(float));
    const std::string message = constructor_message();
    EXPECT_NE(message.find(changed.spec.name), std::string::npos) << message;
    EXPECT_NE(message.find(shape_string(changed.spec.shape)), std::string::npos) << message;
    EXPECT_NE(message.find(shape_string(all[i].spec.shape)), std::string::npos) << message;
  }
}

TEST_F(BrokenModel, BiasesThatTheConfigPromisesMustBeThere) {
  config_["mlp_bias"] = true;
  EXPECT_NE(constructor_message().find("gate_proj.bias"), std::string::npos);
}

TEST_F(BrokenModel, WithAReaderOnlyTheWeightsOfLinearsMayBeMissing) {
  std::erase_if(tensors_,
                [](const TinyTensor& tensor) { return tensor.spec.name.find("_proj.") != std::string::npos; });
  const TemporaryFolder folder;
  testing_model::write_model(folder / "model", config_, tensors_);
  const Checkpoint checkpoint(folder / "model");
  const auto backend = open_backend("cpu");
  const auto reader = [](const LinearSpec& spec) -> PlaceWeight {
    return [spec](Backend& device, DType dtype) { return Matrix(device, dtype, spec.out_features, spec.in_features); };
  };
  EXPECT_THROW(Model(checkpoint, *backend, DType::f32), InputError);
  EXPECT_NO_THROW(Model(checkpoint, *backend, DType::f32, reader));
}

TEST_F(BrokenModel, OtherDtypesThanF32F16AndBf16AreRefused) {
  TinyTensor& weight = tensor("model.layers.1.mlp.up_proj.weight");
  for (const std::string dtype : {"F64", "I32", "F8_E4M3"}) {
    weight.spec.dtype = dtype;
    weight.values.resize(weight.spec.bytes() / sizeof(float));
    const std::string message = constructor_message();
    EXPECT_NE(message.find(weight.spec.name), std::string::npos) << message;
    EXPECT_NE(message.find(dtype), std::string::npos) << message;
  }
}

TEST_F(BrokenModel, NaNAndInfinityAreCountedInEveryTensor) {
  const std::vector<TinyTensor> all = tensors_;
  for (size_t i = 0; i < all.size(); ++i) {
    tensors_ = all;
    tensors_[i].values[1] = std::numeric_limits<float>::quiet_NaN();
    tensors_[i].values[7] = std::numeric_limits<float>::infinity();
    tensors_[i].values.back() = -std::numeric_limits<float>::infinity();
    const std::string message = loading_message();
    EXPECT_NE(message.find(all[i].spec.name), std::string::npos) << message;
    EXPECT_NE(message.find(" 3 "), std::string::npos) << message;
  }
}

TEST(Model, TakesNoIdOutsideTheVocabulary) {
  const Golden golden(fs::path(GPTQ_GOLDEN) / "models" / "plain");
  const auto backend = open_backend("cpu");
  Model model(golden.checkpoint, *backend, DType::f32);
  const auto vocabulary = static_cast<int32_t>(model.config().vocabulary);
  EXPECT_NO_THROW(model.embed(Sequences{{0, vocabulary - 1}}));
  EXPECT_THROW(model.embed(Sequences{{0, vocabulary}}), InputError);
  EXPECT_THROW(model.embed(Sequences{{0}, {3, -1}}), InputError);
}

// Every bit pattern of a 16-bit float once, which covers all chunk ends and both infinities.
TEST(CountNonfinite, CountsExactlyTheFullExponents) {
  std::vector<uint16_t> words(3 * 65536 + 5);
  for (size_t i = 0; i < words.size(); ++i) words[i] = static_cast<uint16_t>(i);
  const auto size = static_cast<int64_t>(words.size());
  EXPECT_EQ(count_nonfinite({words.data(), DType::f16, 1, size}), 3 * 2 * 1024);
  EXPECT_EQ(count_nonfinite({words.data(), DType::bf16, 1, size}), 3 * 2 * 128);
}

TEST(CountNonfinite, CountsATensorOfNothingElse) {
  const std::vector<uint16_t> words(200'000, 0xffff);
  EXPECT_EQ(count_nonfinite({words.data(), DType::bf16, 2, 100'000}), 200'000);
}

TEST(CountNonfinite, KnowsF32) {
  using Limits = std::numeric_limits<float>;
  std::vector<float> values(100'003, Limits::max());
  values.front() = Limits::quiet_NaN();
  values[50'000] = -Limits::infinity();
  values.back() = Limits::infinity();
  EXPECT_EQ(count_nonfinite({values.data(), DType::f32, 1, 100'003}), 3);
}

}  // namespace
}  // namespace gptq
