// Quantized folders with scales that are not finite are refused by whatever reads them.
#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "base/error.h"
#include "gptq/gptq.h"
#include "tiny_model.h"

namespace gptq {
namespace {

using namespace testing_model;  // NOLINT: helpers of the fixture

constexpr const char* kModule = "model.layers.1.mlp.up_proj";

// `value` as an element of this dtype.
std::string element(const std::string& dtype, float value) {
  const auto bytes_of_value = [](const auto& stored) {
    return std::string(reinterpret_cast<const char*>(&stored), sizeof stored);
  };
  if (dtype == "F32") return bytes_of_value(value);
  return dtype == "BF16" ? bytes_of_value(Bf16(value)) : bytes_of_value(Half(value));
}

class Scales : public testing::Test {
 protected:
  void SetUp() override {
    write_tiny_model(folder_ / "model");
    write_ids(folder_ / "ids.jsonl", 2, 20);
  }

  std::string quantized(const std::string& format) {
    Job job{.model = folder_ / "model", .output = folder_ / format, .threads = 1};
    job.recipe.method = Method::rtn;
    job.recipe.group_size = 32;
    job.recipe.checkpoint_format = format;
    quantize(job);
    return format;
  }

  // Copies a folder to "changed" with all scales in `dtype`, and two of the module's set to `value`.
  void change(const std::string& from, const std::string& dtype, float value) const {
    const std::string part = from == "compressed-tensors" ? ".weight_scale" : ".scales";
    const Checkpoint checkpoint(folder_ / from);
    std::vector<TensorSpec> specs;
    std::vector<std::string> values;
    for (const StoredTensor* tensor : checkpoint.tensors()) {
      specs.push_back({tensor->name, tensor->dtype, tensor->shape});
      values.push_back(bytes_of(checkpoint, tensor->name));
      if (!tensor->name.ends_with(part)) continue;
      std::string scales;
      for (size_t i = 0; i < values.back().size(); i += sizeof(Half)) {
        Half half;
        std::memcpy(&half, values.back().data() + i, sizeof half);
        const bool changes = tensor->name == kModule + part && (i == 0 || i == 20);
        scales += element(dtype, changes ? value : static_cast<float>(half));
      }
      specs.back().dtype = dtype;
      values.back() = scales;
    }
    fs::remove_all(folder_ / "changed");
    fs::create_directories(folder_ / "changed");
    fs::copy_file(folder_ / from / "config.json", folder_ / "changed/config.json");
    SafetensorsWriter writer(folder_ / "changed/model.safetensors", specs);
    for (size_t i = 0; i < specs.size(); ++i) writer.write(specs[i].name, values[i].data(), values[i].size());
    writer.finish();
  }

  static std::string refusal(const std::function<void()>& action) {
    try {
      action();
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
  Evaluation evaluation() const {
    return {.model = folder_ / "changed", .texts = {folder_ / "ids.jsonl"}, .context = 20, .threads = 1};
  }

  TemporaryFolder folder_;
};

TEST_F(Scales, ThatAreNotFiniteAreRefusedWithTheTensorAndTheirNumber) {
  for (const char* format : {"gptq", "gptq_v2", "compressed-tensors"}) {
    quantized(format);
    for (const char* dtype : {"F16", "BF16", "F32"}) {
      change(format, dtype, 0.01F);
      EXPECT_EQ(refusal([&] { inspect(folder_ / "changed"); }), "");
      EXPECT_EQ(refusal([&] { perplexity(evaluation()); }), "");
      for (const float value :
           {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        change(format, dtype, value);
        const std::string said = cat("NaN or infinity at 2 places of tensor '", kModule, ".");
        for (const std::string& message :
             {refusal([&] { inspect(folder_ / "changed"); }), refusal([&] { perplexity(evaluation()); })}) {
          EXPECT_NE(message.find(said), std::string::npos) << format << " " << dtype << " " << message;
          EXPECT_TRUE(message.starts_with((folder_ / "changed").string() + ": ")) << message;
          EXPECT_EQ(message.find('\n'), std::string::npos) << message;
        }
      }
    }
  }
}

TEST_F(Scales, OfAShapeThatPacksNothingAreRefusedByInspect) {
  quantized("gptq");
  const Checkpoint checkpoint(folder_ / "gptq");
  std::vector<TensorSpec> specs;
  for (const StoredTensor* tensor : checkpoint.tensors()) {
    specs.push_back({tensor->name, tensor->dtype, tensor->shape});
    if (tensor->name == cat(kModule, ".qweight")) specs.back().shape = {8, 0};
  }
  fs::create_directories(folder_ / "changed");
  fs::copy_file(folder_ / "gptq/config.json", folder_ / "changed/config.json");
  SafetensorsWriter writer(folder_ / "changed/model.safetensors", specs);
  for (const TensorSpec& spec : specs) {
    const std::string bytes = bytes_of(checkpoint, spec.name);
    writer.write(spec.name, bytes.data(), spec.bytes());
  }
  writer.finish();
  const std::string message = refusal([&] { inspect(folder_ / "changed"); });
  EXPECT_NE(message.find("up_proj.qweight' with shape [8, 0] and scales [2, 96] is no packing of [96, 64]"),
            std::string::npos)
      << message;
}

}  // namespace
}  // namespace gptq
