// Each test is one rule of docs/offload.md.
#include "plan/offload_rules.h"

#include <gtest/gtest.h>

#include "backend/registry.h"
#include "base/error.h"

namespace gptq {
namespace {

const Machine kTwoAccelerators{{{"sim:0"}, {"sim:1"}}, {"cpu"}}, kNoAccelerator{{}, {"cpu"}};

DeviceMap map_of(std::vector<DeviceMap::Entry> entries) { return {std::move(entries)}; }

TEST(OffloadRules, DiskIsRefusedWhenQuantizing) {
  try {
    refuse_disk_offload(map_of({{"model.embed_tokens", "sim:0"}, {"model.layers.0", "disk"}, {"lm_head", "disk"}}));
    FAIL() << "not refused";
  } catch (const InputError& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.find("disk offload is not supported with GPTQ quantization"), 0U) << text;
    EXPECT_NE(text.find("\"model.layers.0\", \"lm_head\""), std::string::npos) << "names the entries: " << text;
    EXPECT_NE(text.find("weights stream"), std::string::npos) << "says the way out: " << text;
  }
  EXPECT_NO_THROW(refuse_disk_offload(map_of({{"", "cpu"}})));
}

TEST(OffloadRules, CpuBesideAnotherEntryIsOffload) {
  EXPECT_TRUE(offloads_to_cpu(map_of({{"model", "sim:0"}, {"lm_head", "cpu"}})));
  EXPECT_FALSE(offloads_to_cpu(map_of({{"", "cpu"}}))) << "a single entry is none";
  EXPECT_FALSE(offloads_to_cpu(map_of({{"model", "sim:0"}, {"lm_head", "sim:1"}})));
  EXPECT_STREQ(kCpuOffloadWarning, "Cpu offload is not recommended. There might be some issues with the memory");
}

TEST(OffloadRules, TheSingleEntryCpuAsksForNoPlacement) {
  EXPECT_TRUE(asks_for_no_placement(map_of({{"", "cpu"}})));
  EXPECT_FALSE(asks_for_no_placement(map_of({{"", "sim:0"}})));
  EXPECT_FALSE(asks_for_no_placement(map_of({{"model", "cpu"}, {"lm_head", "cpu"}})));
}

TEST(OffloadRules, WithoutAMapTheCurrentAcceleratorTakesAll) {
  EXPECT_EQ(default_device_map(kTwoAccelerators).to_json(), R"({"": "sim:0"})");
  EXPECT_EQ(default_device_map_message(kTwoAccelerators),
            "The device_map was not initialized. Setting device_map to {'': 0}.");
}

TEST(OffloadRules, WithoutAMapAndWithoutAnAcceleratorTheCpuTakesAll) {
  EXPECT_EQ(default_device_map(kNoAccelerator).to_json(), R"({"": "cpu"})");
  EXPECT_EQ(default_device_map_message(kNoAccelerator),
            "The device_map was not initialized. Setting device_map to {'': 'cpu'}.");
}

TEST(OffloadRules, OffloadedModulesVisitTheFirstAcceleratorOfTheMapElseTheCurrentOne) {
  EXPECT_EQ(visited_device(map_of({{"model.layers.0", "cpu"}, {"model.layers.1", "sim:1"}}), kTwoAccelerators),
            "sim:1");
  EXPECT_EQ(visited_device(map_of({{"", "cpu"}}), kTwoAccelerators), "sim:0");
  EXPECT_EQ(visited_device(map_of({{"", "cpu"}}), kNoAccelerator), "cpu");
}

TEST(OffloadRules, Fp16ModelsUseTheFp16PathAndOthersDoNot) {
  const auto accelerator = open_backend("sim:0"), processor = open_backend("cpu");
  EXPECT_TRUE(precision_of(DType::f16, "auto", *accelerator).use_cuda_fp16);
  EXPECT_FALSE(precision_of(DType::f16, "auto", *processor).use_cuda_fp16) << "a CPU computes it in f32";
  EXPECT_FALSE(precision_of(DType::bf16, "auto", *accelerator).use_cuda_fp16);
  EXPECT_FALSE(precision_of(DType::f32, "auto", *accelerator).use_cuda_fp16);
}

TEST(OffloadRules, ThePrecisionIsSaidWithItsReason) {
  const auto accelerator = open_backend("sim:0"), processor = open_backend("cpu");
  const std::string f16 = message_of(precision_of(DType::f16, "auto", *accelerator));
  EXPECT_NE(f16.find("use_cuda_fp16: true"), std::string::npos) << f16;
  EXPECT_NE(f16.find("because the checkpoint is stored in f"), std::string::npos) << f16;
  const std::string wide = message_of(precision_of(DType::f16, "auto", *processor));
  EXPECT_NE(wide.find("use_cuda_fp16: false"), std::string::npos) << wide;
  EXPECT_NE(wide.find("holds each of its values exactly"), std::string::npos) << wide;
}

TEST(OffloadRules, APrecisionThatIsAskedForIsTakenAndAnUnknownOneRefused) {
  const auto accelerator = open_backend("sim:0"), processor = open_backend("cpu");
  const Precision asked = precision_of(DType::bf16, "fp32", *accelerator);
  EXPECT_EQ(asked.computed, DType::f32);
  EXPECT_NE(message_of(asked).find("as `precision` says"), std::string::npos) << message_of(asked);
  EXPECT_EQ(precision_of(DType::f32, "bf16", *processor).computed, DType::bf16);
  EXPECT_EQ(precision_of(DType::f32, "bf16", *processor).residual, DType::f32) << "a CPU keeps sums of blocks whole";
  EXPECT_EQ(precision_of(DType::bf16, "fp16", *accelerator).residual, DType::f16);
  try {
    precision_of(DType::bf16, "fp8", *accelerator);
    FAIL() << "taken";
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "`precision` fp8: there are auto, fp32, bf16, fp16");
  }
}

}  // namespace
}  // namespace gptq
