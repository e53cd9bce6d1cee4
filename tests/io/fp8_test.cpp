// FP8 weights: their values, and folders with them.
#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "base/error.h"
#include "io/checkpoint.h"
#include "io/small_floats.h"
#include "tiny_model.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;
using testing_model::TemporaryFolder;
using testing_model::write_file;

// torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float() of torch 2
constexpr float kTorchValues[] = {
    0,           0.001953125, 0.00390625,  0.005859375, 0.0078125,   0.009765625, 0.01171875,  0.013671875, 0.015625,
    0.017578125, 0.01953125,  0.021484375, 0.0234375,   0.025390625, 0.02734375,  0.029296875, 0.03125,     0.03515625,
    0.0390625,   0.04296875,  0.046875,    0.05078125,  0.0546875,   0.05859375,  0.0625,      0.0703125,   0.078125,
    0.0859375,   0.09375,     0.1015625,   0.109375,    0.1171875,   0.125,       0.140625,    0.15625,     0.171875,
    0.1875,      0.203125,    0.21875,     0.234375,    0.25,        0.28125,     0.3125,      0.34375,     0.375,
    0.40625,     0.4375,      0.46875,     0.5,         0.5625,      0.625,       0.6875,      0.75,        0.8125,
    0.875,       0.9375,      1,           1.125,       1.25,        1.375,       1.5,         1.625,       1.75,
    1.875,       2,           2.25,        2.5,         2.75,        3,           3.25,        3.5,         3.75,
    4,           4.5,         5,           5.5,         6,           6.5,         7,           7.5,         8,
    9,           10,          11,          12,          13,          14,          15,          16,          18,
    20,          22,          24,          26,          28,          30,          32,          36,          40,
    44,          48,          52,          56,          60,          64,          72,          80,          88,
    96,          104,         112,         120,         128,         144,         160,         176,         192,
    208,         224,         240,         256,         288,         320,         352,         384,         416,
    448};

TEST(E4m3, HasTheValuesOfTorch) {
  static_assert(std::size(kTorchValues) == 127);
  for (int bits = 0; bits < 127; ++bits) {
    EXPECT_EQ(e4m3_value(static_cast<uint8_t>(bits)), kTorchValues[bits]) << bits;
    const float negative = e4m3_value(static_cast<uint8_t>(bits | 0x80));
    EXPECT_EQ(negative, -kTorchValues[bits]) << bits;
    EXPECT_TRUE(std::signbit(negative)) << bits;
  }
  EXPECT_TRUE(std::isnan(e4m3_value(0x7f)));
  EXPECT_TRUE(std::isnan(e4m3_value(0xff)));
}

// Folders with the FP8 tensor "a.weight".
class Fp8Folder : public testing::Test {
 protected:
  struct Tensor {
    TensorSpec spec;
    std::string bytes;
  };
  static std::string as_bytes(const void* data, size_t size) { return {static_cast<const char*>(data), size}; }

  Tensor codes(std::vector<int64_t> shape) {
    TensorSpec spec{"a.weight", "F8_E4M3", std::move(shape)};
    codes_.resize(spec.bytes());
    for (uint8_t& code : codes_) {
      code = static_cast<uint8_t>(random_() % 256);
      if ((code & 0x7fU) == 0x7fU) code = 0;
    }
    return {spec, as_bytes(codes_.data(), codes_.size())};
  }
  Tensor scales(const std::string& name, std::vector<int64_t> shape) {
    TensorSpec spec{name, "F32", std::move(shape)};
    scales_.resize(spec.bytes() / sizeof(float));
    for (float& scale : scales_) scale = 0.001F + 1e-6F * static_cast<float>(random_() % 1000);
    return {spec, as_bytes(scales_.data(), spec.bytes())};
  }
  void write(const std::string& quantization, const std::vector<Tensor>& tensors) const {
    fs::create_directories(model_);
    write_file(model_ / "config.json", R"({"model_type": "llama", "quantization_config": )" + quantization + "}");
    fs::remove(model_ / "model.safetensors");
    std::vector<TensorSpec> specs;
    for (const Tensor& tensor : tensors) specs.push_back(tensor.spec);
    SafetensorsWriter writer(model_ / "model.safetensors", specs);
    for (const Tensor& tensor : tensors) writer.write(tensor.spec.name, tensor.bytes.data(), tensor.bytes.size());
    writer.finish();
  }
  uint16_t expected(size_t element, float scale) const {
    const uint8_t code = codes_[element];
    const float value = kTorchValues[code & 0x7fU] * scale;
    return Bf16((code & 0x80U) != 0 ? -value : value).bits;
  }
  std::string refusal() const {
    try {
      const Checkpoint checkpoint(model_);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

  std::mt19937 random_{7};
  std::vector<uint8_t> codes_;
  std::vector<float> scales_;
  TemporaryFolder folder_;
  fs::path model_ = folder_ / "model";
};

TEST_F(Fp8Folder, BlocksOfAWeightHaveAScaleEach) {
  // The last blocks may be partial; each matrix of a tensor has its own blocks.
  struct Case {
    std::vector<int64_t> shape, scales;
    int64_t block_rows, block_cols;
  };
  for (const Case& c : {Case{{96, 160}, {1, 2}, 128, 128}, Case{{96, 160}, {3, 5}, 32, 32},
                        Case{{50, 67}, {4, 5}, 16, 16}, Case{{3, 50, 67}, {3, 2, 7}, 32, 10}}) {
    write(cat(R"({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [)",
              c.block_rows, ", ", c.block_cols, "]}"),
          {codes(c.shape), scales("a.weight_scale_inv", c.scales)});
    const Checkpoint checkpoint(model_);
    EXPECT_TRUE(checkpoint.quantization_config().is_null());
    EXPECT_FALSE(checkpoint.has("a.weight_scale_inv"));
    EXPECT_EQ(checkpoint.tensors().size(), 1U);
    const StoredTensor& tensor = checkpoint.tensor("a.weight", c.shape);
    EXPECT_EQ(tensor.dtype, "BF16");
    EXPECT_EQ(checkpoint.in_file(tensor).dtype, "F8_E4M3");
    EXPECT_EQ(checkpoint.bytes(), codes_.size() + 4 * scales_.size());
    const int64_t rows = c.shape[c.shape.size() - 2], cols = c.shape.back(), scale_rows = c.scales[c.scales.size() - 2],
                  scale_cols = c.scales.back();
    // In pieces with arbitrary boundaries.
    std::vector<uint16_t> values(codes_.size());
    for (size_t first = 0; first < values.size();) {
      const size_t count = std::min<size_t>(values.size() - first, 1 + random_() % 2000);
      checkpoint.read(tensor, 2 * first, 2 * count, values.data() + first);
      first += count;
    }
    for (size_t i = 0; i < values.size(); ++i) {
      const auto row = static_cast<int64_t>(i) / cols, col = static_cast<int64_t>(i) % cols;
      const int64_t scale = (row / rows * scale_rows + row % rows / c.block_rows) * scale_cols + col / c.block_cols;
      ASSERT_EQ(values[i], expected(i, scales_[scale])) << shape_string(c.shape) << " at " << row << ", " << col;
    }
  }
}

TEST_F(Fp8Folder, ARowOrAWholeWeightMayHaveOneScale) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{}, std::vector<int64_t>{1}, std::vector<int64_t>{20, 1}}) {
    Tensor used{{"a.input_scale", "F32", {}}, std::string(4, '\0')};
    write(R"({"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": null})",
          {codes({20, 30}), scales("a.weight_scale", shape), used});
    const Checkpoint checkpoint(model_);
    EXPECT_FALSE(checkpoint.has("a.weight_scale"));
    EXPECT_FALSE(checkpoint.has("a.input_scale"));
    const Matrix values = checkpoint.load(checkpoint.tensor("a.weight"));
    for (size_t i = 0; i < codes_.size(); ++i)
      ASSERT_EQ(values.row<uint16_t>(0)[i], expected(i, scales_[scales_.size() == 1 ? 0 : i / 30]));
  }
}

TEST_F(Fp8Folder, ScalesMayBePowersOfTwo) {
  for (const char* name : {"a.weight_scale_inv", "a.scale"}) {
    write(R"({"quant_method": "fp8", "scale_fmt": "ue8m0", "weight_block_size": [16, 16]})",
          {codes({20, 30}), {{name, "F8_E8M0", {2, 2}}, {"\x7f\x80\x70\xff", 4}}});
    const Checkpoint checkpoint(model_);
    EXPECT_EQ(checkpoint.tensors().size(), 1U);
    const Matrix values = checkpoint.load(checkpoint.tensor("a.weight"));
    const float scale[] = {1, 2, 0x1p-15F};
    for (size_t i = 0; i < codes_.size(); ++i) {
      const size_t block = i / 30 / 16 * 2 + i % 30 / 16;
      if (block == 3)
        ASSERT_TRUE(std::isnan(static_cast<float>(values.row<Bf16>(0)[i])));
      else
        ASSERT_EQ(values.row<uint16_t>(0)[i], expected(i, scale[block]));
    }
  }
}

TEST_F(Fp8Folder, CompressedTensorsAndModelOptAreReadToo) {
  const auto group = [](const std::string& more) {
    return cat(R"({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": )",
               R"({"targets": ["Linear"], "weights": {"num_bits": 8, "type": "float")", more, "}}}}");
  };
  struct Case {
    std::string entry;
    std::vector<int64_t> scales;
    size_t rows, cols;  // of a block
  };
  for (const Case& c : {Case{group(R"(, "strategy": "channel")"), {20, 1}, 1, 30},
                        Case{group(R"(, "strategy": "tensor")"), {1}, 20, 30},
                        Case{group(R"(, "strategy": "block", "block_structure": [16, 16])"), {2, 2}, 16, 16},
                        Case{group(R"(, "strategy": "group", "group_size": 10)"), {20, 3}, 1, 10},
                        Case{R"({"quant_method": "modelopt", "quant_algo": "FP8"})", {}, 20, 30},
                        Case{R"({"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"})", {20}, 1, 30}}) {
    write(c.entry, {codes({20, 30}), scales("a.weight_scale", c.scales)});
    const Checkpoint checkpoint(model_);
    EXPECT_TRUE(checkpoint.quantization_config().is_null()) << c.entry;
    const Matrix values = checkpoint.load(checkpoint.tensor("a.weight"));
    const size_t across = (30 + c.cols - 1) / c.cols;
    for (size_t i = 0; i < codes_.size(); ++i)
      ASSERT_EQ(values.row<uint16_t>(0)[i], expected(i, scales_[i / 30 / c.rows * across + i % 30 / c.cols]))
          << c.entry;
  }
  // ModelOpt's own file, which does not go into an output.
  write("null", {codes({20, 30}), scales("a.weight_scale", {})});
  write_file(model_ / "hf_quant_config.json", R"({"producer": {}, "quantization": {"quant_algo": "FP8"}})");
  EXPECT_EQ(Checkpoint(model_).tensor("a.weight").dtype, "BF16");
  EXPECT_TRUE(Checkpoint(model_).side_files().empty());
  // Other kinds of these methods stay what they are.
  write(R"({"quant_method": "modelopt", "quant_algo": "NVFP4"})", {codes({20, 30})});
  EXPECT_FALSE(Checkpoint(model_).quantization_config().is_null());
}

TEST_F(Fp8Folder, ScalesMayBeOfBf16AndNaNStaysNaN) {
  Tensor weight = codes({2, 3});
  weight.bytes[1] = '\x7f';
  weight.bytes[5] = '\xff';
  const Bf16 scale(0.25F);
  write(R"({"quant_method": "fp8", "weight_block_size": [128, 128]})",
        {weight, {{"a.weight_scale_inv", "BF16", {1, 1}}, as_bytes(&scale, sizeof scale)}});
  const Checkpoint checkpoint(model_);
  const Matrix values = checkpoint.load(checkpoint.tensor("a.weight"));
  for (size_t i = 0; i < 6; ++i) {
    const auto value = static_cast<float>(values.row<Bf16>(0)[i]);
    if (i == 1 || i == 5)
      EXPECT_TRUE(std::isnan(value));
    else
      EXPECT_EQ(value, e4m3_value(codes_[i]) / 4);
  }
}

TEST_F(Fp8Folder, ANaNAmongScalesIsNaNInTheWeight) {
  for (const uint32_t bits : {0x7fffffffU, 0xffffffffU, 0x7f800001U}) {
    write(R"({"quant_method": "fp8"})", {codes({2, 3}), {{"a.weight_scale", "F32", {}}, as_bytes(&bits, sizeof bits)}});
    const Checkpoint checkpoint(model_);
    const Matrix values = checkpoint.load(checkpoint.tensor("a.weight"));
    for (size_t i = 0; i < 6; ++i) EXPECT_TRUE(std::isnan(static_cast<float>(values.row<Bf16>(0)[i]))) << bits;
  }
}

TEST_F(Fp8Folder, ScalesThatDoNotFitAreRefusedByName) {
  const std::string blocks = R"({"quant_method": "fp8", "weight_block_size": [16, 16]})";
  write(blocks, {codes({20, 30})});
  EXPECT_NE(refusal().find("'a.weight' has no scales 'a.weight_scale_inv'"), std::string::npos) << refusal();
  write(blocks, {codes({20, 30}), scales("a.weight_scale_inv", {2, 3})});
  EXPECT_NE(refusal().find("[2, 3], but weight_block_size [16, 16] of config.json implies [2, 2]"), std::string::npos)
      << refusal();
  write(R"({"quant_method": "fp8"})", {codes({20, 30}), scales("a.weight_scale_inv", {2, 2})});
  EXPECT_NE(refusal().find("config.json has no weight_block_size"), std::string::npos) << refusal();
  write(blocks, {codes({20, 30}), {{"a.weight_scale_inv", "F8_E5M2", {2, 2}}, "abcd"}});
  EXPECT_NE(refusal().find("are stored as F8_E5M2"), std::string::npos) << refusal();
  for (const char* size : {"128", "[128]", "[0, 128]", "[\"a\", 1]", "[9223372036854775807, 1]"}) {
    write(cat(R"({"quant_method": "fp8", "weight_block_size": )", size, "}"), {codes({20, 30})});
    EXPECT_NE(refusal().find("two positive numbers"), std::string::npos) << size << ": " << refusal();
  }
  write(R"({"quant_method": "fp8", "fmt": "e5m2"})", {codes({20, 30})});
  EXPECT_NE(refusal().find("e5m2"), std::string::npos) << refusal();
}

}  // namespace
}  // namespace gptq
