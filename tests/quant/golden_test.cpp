// GPTQ's codes, scales, zeros, group indices and losses, compared with PyTorch in double precision
// (tests/golden/gptq/make.py).

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "backend/registry.h"
#include "io/checkpoint.h"
#include "quant/paper.h"
#include "quant/solver.h"
#include "recipe/recipe.h"

namespace gptq {
namespace {

const std::string kFolder = std::string(GPTQ_GOLDEN) + "/gptq/";

struct GoldenCase {
  Json facts;
  std::string name() const { return facts.at("name"); }
  int64_t number(const char* key) const { return facts.at(key).get<int64_t>(); }
};

std::vector<GoldenCase> golden_cases() {
  std::vector<GoldenCase> cases;
  for (const Json& facts : read_json(kFolder + "cases.json")) cases.push_back({facts});
  return cases;
}

std::string case_name(const testing::TestParamInfo<GoldenCase>& info) { return info.param.name(); }

double share_equal(const std::vector<uint8_t>& ours, const uint8_t* golden) {
  int64_t equal = 0;
  for (size_t i = 0; i < ours.size(); ++i) equal += ours[i] == golden[i] ? 1 : 0;
  return static_cast<double>(equal) / static_cast<double>(ours.size());
}

class GoldenGptq : public testing::TestWithParam<GoldenCase> {
 protected:
  GoldenGptq() : file_(kFolder + "gptq.safetensors") {}

  ConstMatrixView tensor(const std::string& name) const {
    for (const StoredTensor& stored : file_.tensors()) {
      if (stored.name == name) return loaded_.try_emplace(name, file_.load(stored)).first->second;
    }
    throw InputError("the golden file lacks " + name);
  }
  ConstMatrixView of_case(const std::string& part) const { return tensor(GetParam().name() + "." + part); }

  // The case's inputs [tokens, cols] of the quantized or the original model: the first columns of X or Xo, dead ones
  // zero.
  std::vector<float> inputs(const char* name = "X") const {
    const ConstMatrixView stored = tensor(name);
    const int64_t cols = GetParam().number("cols");
    std::vector<float> X;
    for (int64_t t = 0; t < stored.rows; ++t) {
      for (int64_t k = 0; k < cols; ++k) X.push_back(static_cast<float>(stored.row<Half>(t)[k]));
      for (const Json& dead : GetParam().facts.at("dead")) X[t * cols + dead.get<int64_t>()] = 0;
    }
    return X;
  }

  SafetensorsFile file_;
  mutable std::map<std::string, Matrix> loaded_;
};

TEST_P(GoldenGptq, SolverGivesTheSameCodes) {
  const GoldenCase& golden = GetParam();
  const int64_t rows = golden.number("rows"), cols = golden.number("cols"), tokens = golden.number("tokens");
  Recipe recipe = recipe_preset(golden.facts.at("recipe"));
  recipe.bits = static_cast<int>(golden.number("bits"));
  recipe.group_size = golden.number("group_size");
  recipe.sym = golden.facts.at("sym");
  recipe.round_dead_columns = false;  // as in the paper
  if (golden.facts.at("desc_act")) {
    recipe.desc_act = true;
    recipe.order = Order::diagonal;
  }
  const Json& options = golden.facts.at("options");
  recipe.signed_scales = options.value("signed", false);
  recipe.refine = options.value("stages", "none");
  if (options.contains("alpha")) {
    recipe.targets = Targets::corrected;
    recipe.alpha = options.at("alpha").get<double>();
  }
  const ResolvedRecipe resolved = resolve(recipe);
  const auto backend = open_backend("cpu");
  const bool corrected = recipe.targets == Targets::corrected;
  Hessian hessian(*backend, cols, corrected);
  const Matrix x = to_device(*backend, DType::f32, tokens, cols, inputs().data());
  corrected ? hessian.add(x, to_device(*backend, DType::f32, tokens, cols, inputs("Xo").data())) : hessian.add(x);
  const Matrix W = to_device(*backend, DType::f32, rows, cols, of_case("W").data);
  const FactoredHessian factored = hessian.factor(resolved, golden.name());
  const Quantized quantized = solve(*backend, W, factored, resolved);

  const ConstMatrixView g_idx = of_case("g_idx"), order = of_case("order");
  EXPECT_EQ(quantized.g_idx, std::vector<int32_t>(g_idx.row<int32_t>(0), g_idx.row<int32_t>(0) + cols));
  if (recipe.order != Order::natural) {
    EXPECT_EQ(factored.order, std::vector<int32_t>(order.row<int32_t>(0), order.row<int32_t>(0) + cols));
  }
  // A target within f32 precision of a tie may be rounded to the other side, and then the rest of its row may differ.
  EXPECT_GE(share_equal(to_host<uint8_t>(*backend, quantized.codes), of_case("codes").row<uint8_t>(0)), 0.99);
  EXPECT_GE(share_equal(to_host<uint8_t>(*backend, quantized.zeros), of_case("zeros").row<uint8_t>(0)), 0.99);
  const std::vector<float> scales = to_host<float>(*backend, quantized.scales);
  int64_t equal = 0;
  for (size_t i = 0; i < scales.size(); ++i) equal += scales[i] == of_case("scales").row<float>(0)[i] ? 1 : 0;
  EXPECT_GE(static_cast<double>(equal), 0.97 * static_cast<double>(scales.size()));
  EXPECT_NEAR(quantized.loss / golden.facts.at("loss").get<double>(), 1, 5e-3);
}

TEST_P(GoldenGptq, ThePaperLoopHereIsThePaperLoopThere) {
  const GoldenCase& golden = GetParam();
  if (golden.facts.at("recipe") != "paper" || golden.facts.at("desc_act"))
    return;  // the oracle solves in natural order
  const int64_t rows = golden.number("rows"), cols = golden.number("cols"), tokens = golden.number("tokens");
  const std::vector<float> X = inputs();
  std::vector<double> H(static_cast<size_t>(cols * cols));
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < cols; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        H[i * cols + j] += 2.0 / static_cast<double>(tokens) * X[t * cols + i] * X[t * cols + j];
      }
    }
  }
  const float* w = of_case("W").row<float>(0);
  const PaperResult result = paper_gptq(std::vector<double>(w, w + rows * cols), H, rows, cols,
                                        {.bits = static_cast<int>(golden.number("bits")),
                                         .group_size = golden.number("group_size"),
                                         .sym = golden.facts.at("sym"),
                                         .damp_percent = golden.facts.at("damp_percent")});
  EXPECT_EQ(share_equal(result.codes, of_case("codes").row<uint8_t>(0)), 1);
  EXPECT_EQ(share_equal(result.zeros, of_case("zeros").row<uint8_t>(0)), 1);
  EXPECT_NEAR(result.loss / 2 / golden.facts.at("loss").get<double>(), 1, 1e-9);
}

INSTANTIATE_TEST_SUITE_P(Cases, GoldenGptq, testing::ValuesIn(golden_cases()), case_name);

}  // namespace
}  // namespace gptq
