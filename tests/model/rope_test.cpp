// Tables of every rope kind at the sizes of real models, against transformers (tests/golden/models/rope.json).
#include <cmath>
#include <fstream>
#include <map>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "model/architecture.h"

namespace gptq {
namespace {

const std::filesystem::path kFolder = std::filesystem::path(GPTQ_GOLDEN) / "models";

class RopeTables : public testing::TestWithParam<Json> {};

// Math libraries may round the power in a frequency differently: then an angle of n radians differs by 2 n roundings.
// Four more are from the cosine, its scaling and the table.
TEST_P(RopeTables, EqualTransformers) {
  const Json& golden = GetParam();
  const std::string name = golden["name"];
  const ModelConfig config = parse_model_config(golden["config"], kFolder);
  const RopeTable table = rope_table(config.ropes[0], golden["length"]);
  const SafetensorsFile file(kFolder / "rope.safetensors");
  std::map<std::string, Matrix> answers;
  for (const StoredTensor& tensor : file.tensors()) answers.emplace(tensor.name, file.load(tensor));
  const ConstMatrixView cos = answers.at(name + ".cos").view(), sin = answers.at(name + ".sin").view();
  ASSERT_EQ(table.positions, golden["length"].get<int64_t>());
  ASSERT_EQ(table.half_dim, cos.cols);
  ASSERT_EQ(table.cos.size(), static_cast<size_t>(table.positions * table.half_dim));
  ASSERT_EQ(table.sin.size(), table.cos.size());
  double worst = 0;
  for (int64_t row = 0; row < cos.rows; ++row) {
    const auto position = golden["positions"][static_cast<size_t>(row)].get<int64_t>();
    for (int64_t i = 0; i < cos.cols; ++i) {
      const double base_frequency =  // an upper bound for all kinds
          std::pow(config.ropes[0].theta,
                   -2.0 * static_cast<double>(i) / static_cast<double>(config.ropes[0].rotary_dim));
      const double angle = static_cast<double>(position) * base_frequency;
      const double allowed = (4 + 2 * angle) * 0x1p-24;
      const auto at = static_cast<size_t>(position * table.half_dim + i);
      const double off = std::max(std::abs(static_cast<double>(table.cos[at]) - cos.row<float>(row)[i]),
                                  std::abs(static_cast<double>(table.sin[at]) - sin.row<float>(row)[i]));
      worst = std::max(worst, off);
      EXPECT_LE(off, allowed) << "position " << position << " pair " << i;
    }
  }
  RecordProperty("worst", cat(worst));
}

std::vector<Json> rope_cases() {
  std::vector<Json> cases;
  for (const Json& golden : read_json(kFolder / "rope.json")) cases.push_back(golden);
  return cases;
}

std::string case_name(const testing::TestParamInfo<Json>& info) {
  std::string name = info.param["name"];
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Cases, RopeTables, testing::ValuesIn(rope_cases()), case_name);

TEST(Rope, OnlyDynamicAndLongropeDependOnTheLength) {
  for (const RopeKind kind : {RopeKind::standard, RopeKind::linear, RopeKind::yarn, RopeKind::llama3}) {
    EXPECT_FALSE(depends_on_length({.kind = kind}));
  }
  EXPECT_TRUE(depends_on_length({.kind = RopeKind::dynamic}));
  EXPECT_TRUE(depends_on_length({.kind = RopeKind::longrope}));
}

// Unless frequencies depend on the length, a short table is the beginning of a long one.
TEST(Rope, AShortTableBeginsALongOne) {
  for (const Json& golden : rope_cases()) {
    const Rope rope = parse_model_config(golden["config"], kFolder).ropes[0];
    const RopeTable shorter = rope_table(rope, 9), longer = rope_table(rope, rope.max_positions + 1);
    const bool begins = std::equal(shorter.cos.begin(), shorter.cos.end(), longer.cos.begin()) &&
                        std::equal(shorter.sin.begin(), shorter.sin.end(), longer.sin.begin());
    EXPECT_EQ(begins, !depends_on_length(rope)) << golden["name"];
  }
}

}  // namespace
}  // namespace gptq
