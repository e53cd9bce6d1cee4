// The final check finds outputs that do not compute what was quantized.
#include "run/final_check.h"

#include <cmath>
#include <cstring>
#include <functional>

#include <gtest/gtest.h>

#include "report/summary.h"
#include "run/replay.h"
#include "tiny_model.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;
using namespace testing_model;  // NOLINT: helpers of the fixture

class Quiet final : public RunObserver {
 public:
  void begin_stage(const char* /*stage*/) override {}
  void end_stage() override {}
  void begin_step(const std::vector<LinearSpec>& /*step*/) override {}
  void swept(const std::vector<LinearSpec>& /*step*/, int64_t /*tokens*/) override {}
  void solved_step(const std::vector<LinearSpec>& /*step*/, int64_t /*dropped_rows*/) override {}
  void worked(double /*multiply_adds*/) override {}
  void solved(const LinearSpec& /*linear*/, const Quantized& /*quantized*/, const FactoredHessian* /*hessian*/,
              Backend& /*backend*/) override {}
  void begin_unit(const Placement::Unit& /*unit*/, int64_t /*block*/, Backend& /*backend*/) override {}
  void end_unit(int64_t /*sequences_at_once*/) override {}
  void trimmed(const std::string& /*when*/, const std::vector<Trimmed>& /*devices*/) override {}
};

// A safetensors file whose tensors are renamed and changed in place.
class Tensors {
 public:
  explicit Tensors(fs::path file) : file_(std::move(file)), bytes_(read_file(file_)) {
    uint64_t length = 0;
    std::memcpy(&length, bytes_.data(), sizeof length);
    header_ = Json::parse(bytes_.substr(sizeof length, length));
    data_ = sizeof length + length;
  }
  // Gives each tensor whose name has `one` in it the data of that with `other` instead, and the other way round.
  void swap(const std::string& one, const std::string& other) {
    const Json before = header_;
    for (const auto& [name, entry] : before.items()) {
      const size_t at = name.find(one);
      if (at == name.npos) continue;
      std::swap(header_.at(name), header_.at(std::string(name).replace(at, one.size(), other)));
    }
  }
  // Calls change(bytes) with the data of each tensor whose name ends in `end`; returns how many there are.
  int for_each(const std::string& end, const std::function<void(std::span<char>)>& change) {
    int count = 0;
    for (const auto& [name, entry] : header_.items()) {
      if (!name.ends_with(end)) continue;
      const auto first = entry.at("data_offsets")[0].get<size_t>(), last = entry.at("data_offsets")[1].get<size_t>();
      change(std::span(bytes_.data() + data_ + first, last - first));
      ++count;
    }
    return count;
  }
  void write() const {
    std::string header = header_.dump();
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const uint64_t length = header.size();
    write_file(file_,
               std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + bytes_.substr(data_));
  }

 private:
  fs::path file_;
  std::string bytes_;
  Json header_;
  size_t data_ = 0;
};

std::vector<std::string> warnings_of(const Check& check, const std::vector<LinearReport>& linears) {
  std::vector<std::string> warnings;
  for (const Notice& notice : check_notices(check, linears))
    if (notice.level == Level::warning) warnings.push_back(notice.text);
  return warnings;
}

class FinalCheck : public testing::Test {
 protected:
  void SetUp() override {
    job_.model = fs::path(GPTQ_GOLDEN) / "families" / "qwen3_moe";
    job_.output = folder_ / "out";
    job_.threads = 1;
    write_ids(folder_ / "ids.jsonl", 8, 24, 66);
    job_.calibration = {.file = folder_ / "ids.jsonl", .samples = 6, .sequence_length = 24};
    job_.recipe.group_size = 8;
    report_ = quantize(job_);
    fs::copy(job_.output, sabotaged_);
  }
  // As at the end of the run that wrote job_.output, had it written `folder`.
  Check check(const fs::path& folder) {
    const gptq::Setup setup = set_up(job_);
    const Facts& facts = setup.facts;
    Devices devices(facts.resources, 1);
    DeviceSession session(*facts.checkpoint, facts.placement, devices, facts.precision.computed, nullptr, {});
    WrittenModel output(job_.output, facts, devices), written(folder, facts, devices);
    HeldBack held_back(session, {{TokenSequence(24, 5), TokenSequence{3,  9,  27, 15, 5,  45, 7, 21, 63, 61, 55, 37,
                                                                      11, 33, 35, 41, 23, 13, 1, 2,  4,  8,  16, 32}}},
                       nullptr);
    const auto stops = every_block(facts.config.blocks);
    Replay(session, held_back.originals(), nullptr, quiet_).walk(stops, {});
    Replay(output.session, held_back.quantized(), nullptr, quiet_).walk(stops, {});
    return check_output(held_back, session, written.session, stops, quiet_, true, {});
  }
  void expect_found() {
    const Check found = check(sabotaged_);
    EXPECT_GT(found.difference, 0.02);
    const auto warnings = warnings_of(found, report_.linears);
    ASSERT_FALSE(warnings.empty());
    EXPECT_NE(warnings[0].find("does not compute what was quantized"), std::string::npos) << warnings[0];
  }
  TemporaryFolder folder_;
  const fs::path sabotaged_ = folder_ / "sabotaged";
  Job job_;
  Report report_;
  Quiet quiet_;
};

TEST_F(FinalCheck, AcceptsWhatWasWritten) {
  const Check found = check(sabotaged_);
  EXPECT_EQ(found.difference, 0) << "the same kernels give the same bits";
  EXPECT_EQ(found.tokens, 46);
  EXPECT_GT(found.mean_kl, 0);
  EXPECT_LT(found.mean_kl, 0.2);
  EXPECT_TRUE(
      warnings_of({.sequences = 2, .tokens = 46, .mean_kl = found.mean_kl, .frequency_nll = 1e9}, report_.linears)
          .empty());
}

TEST_F(FinalCheck, FindsSwappedGateAndUp) {
  Tensors tensors(sabotaged_ / "model.safetensors");
  tensors.swap(".gate_proj.", ".up_proj.");
  tensors.write();
  expect_found();
}

TEST_F(FinalCheck, FindsAWrongRope) {
  Json config = Json::parse(read_file(sabotaged_ / "config.json"));
  config["rope_theta"] = 50.0;
  write_file(sabotaged_ / "config.json", config.dump());
  expect_found();
}

TEST_F(FinalCheck, FindsAnExpertOfZeros) {
  Tensors tensors(sabotaged_ / "model.safetensors");
  ASSERT_GE(tensors.for_each("experts.1.down_proj.scales",
                             [](std::span<char> data) { std::fill(data.begin(), data.end(), 0); }),
            1);
  tensors.write();
  expect_found();
}

TEST_F(FinalCheck, FindsNormsWithAWrongOffset) {
  Tensors tensors(sabotaged_ / "model.safetensors");
  const auto add_one = [](std::span<char> data) {
    for (size_t at = 0; at < data.size(); at += sizeof(Bf16)) {
      Bf16 value{};
      std::memcpy(&value, data.data() + at, sizeof value);
      value = Bf16(static_cast<float>(value) + 1);
      std::memcpy(data.data() + at, &value, sizeof value);
    }
  };
  ASSERT_GE(tensors.for_each("input_layernorm.weight", add_one), 1);
  tensors.write();
  expect_found();
}

TEST_F(FinalCheck, FindsAWrongHead) {
  Tensors tensors(sabotaged_ / "model.safetensors");
  ASSERT_EQ(tensors.for_each("lm_head.weight",
                             [](std::span<char> data) {
                               std::rotate(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(data.size() / 2),
                                           data.end());
                             }),
            1);
  tensors.write();
  expect_found();
}

TEST_F(FinalCheck, IsPartOfARunUnlessTurnedOff) {
  ASSERT_TRUE(report_.check.has_value());
  EXPECT_EQ(report_.check->difference, 0);
  EXPECT_TRUE(report_.check->held_back) << "two of the eight lines are left";
  EXPECT_EQ(report_.check->sequences, 1);
  EXPECT_GT(report_.check->mean_kl, 0);
  EXPECT_NE(to_json(report_).find("\"mean_kl\""), std::string::npos);
  const auto expected = contents(job_.output);
  job_.final_check = false;
  job_.overwrite = true;
  EXPECT_FALSE(quantize(job_).check.has_value());
  EXPECT_TRUE(contents(job_.output) == expected) << "it changes no byte";
}

TEST_F(FinalCheck, ReadsTheCalibrationWhereTheTextHasNothingElse) {
  job_.calibration.samples = 8;
  job_.overwrite = true;
  const Report report = quantize(job_);
  EXPECT_FALSE(report.check->held_back);
  EXPECT_GT(report.check->tokens, 0);
}

TEST_F(FinalCheck, SaysThatAModelPredictsWorseThanFrequencies) {
  const std::vector<TokenSequence> text = {{1, 1, 1, 2}};
  EXPECT_NEAR(loss_of_frequencies(text, {{{7, 1, 2, 9}}}, 8),
              (std::log(12 / 4.0) + std::log(12 / 2.0) + std::log(12)) / 3, 1e-12);
  const Check check{.sequences = 1, .tokens = 9, .model_nll = 5, .frequency_nll = 4.9};
  const auto warnings = warnings_of(check, report_.linears);
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_NE(warnings[0].find("than the frequencies"), std::string::npos);
}

}  // namespace
}  // namespace gptq
