// Source formats: what other libraries read from their own folders, and folders that do not fit together.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "base/error.h"
#include "io/checkpoint.h"
#include "io/source_format.h"
#include "ops/copies.h"
#include "tiny_model.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;
using testing_model::TemporaryFolder;
using testing_model::write_file;

std::vector<fs::path> golden_folders() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(fs::path(GPTQ_GOLDEN) / "sources")) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

// The checkpoint, dequantized where that must be asked for.
std::unique_ptr<Checkpoint> open(const fs::path& folder, bool transposed = false) {
  auto checkpoint = std::make_unique<Checkpoint>(folder);
  if (!checkpoint->quantization_config().is_null()) checkpoint->dequantize(transposed);
  return checkpoint;
}

class GoldenSources : public testing::Test {
 protected:
  // A copy without the expected values, which are no part of the folder.
  fs::path copy_of(const fs::path& golden) const {
    const fs::path folder = folder_ / golden.filename();
    fs::create_directories(folder);
    for (const char* file : {"config.json", "model.safetensors"})
      fs::copy_file(golden / file, folder / file, fs::copy_options::overwrite_existing);
    return folder;
  }
  TemporaryFolder folder_;
};

TEST_F(GoldenSources, EveryValueIsThatOfTheFormatsOwnLibrary) {
  ASSERT_GE(golden_folders().size(), 18U);
  std::mt19937 random(3);
  for (const fs::path& golden : golden_folders()) {
    SCOPED_TRACE(golden.filename().string());
    const auto checkpoint = open(copy_of(golden));
    const SafetensorsFile expected(golden / "expected.safetensors");
    EXPECT_TRUE(checkpoint->quantization_config().is_null());
    EXPECT_EQ(checkpoint->tensors().size(), expected.tensors().size()) << "all other tensors are hidden";
    for (const StoredTensor& tensor : expected.tensors()) {
      const StoredTensor& found = checkpoint->tensor(tensor.name, tensor.shape);
      EXPECT_EQ(found.dtype, tensor.dtype) << tensor.name;
      const DType dtype = *parse_safetensors_dtype(tensor.dtype);
      std::vector<std::byte> right(tensor.bytes), values(found.bytes);
      expected.read(tensor, 0, right.size(), right.data());
      for (size_t first = 0; first < values.size();) {  // in pieces with arbitrary boundaries
        const size_t bytes = std::min(values.size() - first, size_of(dtype) * (1 + random() % 300));
        checkpoint->read(found, first, bytes, values.data() + first);
        first += bytes;
      }
      ASSERT_EQ(right.size(), values.size());
      EXPECT_EQ(testing_model::bytes_of(*checkpoint, tensor.name),
                std::string(reinterpret_cast<const char*>(values.data()), values.size()))
          << "as a whole";
      if (!golden.filename().string().starts_with("bitsandbytes")) {
        EXPECT_TRUE(values == right) << tensor.name;
        continue;
      }
      // Whose library multiplies in another order: the last bit may differ.
      const auto wide = [&](const std::vector<std::byte>& bytes) {
        const auto count = static_cast<int64_t>(bytes.size() / size_of(dtype));
        Matrix result(host_memory(), DType::f32, 1, count);
        reference(ops::Convert{.x = {bytes.data(), dtype, 1, count}, .y = result});
        return result;
      };
      const Matrix x = wide(values), y = wide(right);
      for (int64_t i = 0; i < x.cols(); ++i)
        ASSERT_NEAR(x.row<float>(0)[i], y.row<float>(0)[i], 0.0079F * std::abs(y.row<float>(0)[i])) << i;
    }
  }
}

TEST_F(GoldenSources, LinearsOfGpt2AreTransposed) {
  for (const fs::path& golden : golden_folders()) {
    if (golden.filename() == "mxfp4") continue;
    SCOPED_TRACE(golden.filename().string());
    const fs::path folder = copy_of(golden);
    const auto plain = open(folder), transposed = open(folder, true);
    for (const StoredTensor* tensor : plain->tensors()) {
      const Matrix rows = plain->load(*tensor), cols = transposed->load(transposed->tensor(tensor->name));
      ASSERT_EQ(rows.rows(), cols.cols());
      ASSERT_EQ(rows.cols(), cols.rows());
      const size_t size = size_of(rows.dtype());
      for (int64_t r = 0; r < rows.rows(); ++r) {
        for (int64_t c = 0; c < rows.cols(); ++c)
          ASSERT_EQ(std::memcmp(rows.view().col_range(c, 1).row_range(r, 1).data,
                                cols.view().col_range(r, 1).row_range(c, 1).data, size),
                    0);
      }
    }
  }
}

TEST_F(GoldenSources, AWeightIsReadOnlyOnRequestIfItWasRoundedAfterTraining) {
  for (const fs::path& golden : golden_folders()) {
    const Checkpoint checkpoint(copy_of(golden));
    EXPECT_EQ(checkpoint.quantization_config().is_null(), golden.filename() == "mxfp4") << golden;
    if (checkpoint.quantization_config().is_null()) continue;
    EXPECT_TRUE(checkpoint.can_dequantize()) << golden;
  }
}

// Folders with some tensors of zeros, which a test describes by their dtypes and shapes.
class BrokenSources : public testing::Test {
 protected:
  using Shapes = std::map<std::string, std::pair<std::string, std::vector<int64_t>>>;

  std::string refusal(const std::string& quantization, const Shapes& tensors,
                      const std::map<std::string, std::string>& contents = {}) const {
    const fs::path model = folder_ / "model";
    fs::create_directories(model);
    write_file(model / "config.json", R"({"model_type": "llama", "quantization_config": )" + quantization + "}");
    fs::remove(model / "model.safetensors");
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.first, tensor.second});
    SafetensorsWriter writer(model / "model.safetensors", specs);
    for (const TensorSpec& spec : specs) {
      std::string bytes(spec.bytes(), '\0');
      if (const auto content = contents.find(spec.name); content != contents.end())
        bytes.replace(0, std::min(bytes.size(), content->second.size()), content->second, 0, bytes.size());
      writer.write(spec.name, bytes.data(), bytes.size());
    }
    writer.finish();
    try {
      const auto checkpoint = open(model);
      for (const StoredTensor* tensor : checkpoint->tensors()) testing_model::bytes_of(*checkpoint, tensor->name);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }

  // Changes one tensor at a time, or takes it out, and expects an error that names it.
  void expect_refusals(const std::string& quantization, const Shapes& whole,
                       const std::map<std::string, std::string>& contents = {},
                       const std::vector<std::string>& optional = {}) const {
    ASSERT_EQ(refusal(quantization, whole, contents), "accepted");
    for (const auto& [name, tensor] : whole) {
      const bool is_optional = std::find(optional.begin(), optional.end(), name) != optional.end();
      const std::string module = name.substr(0, name.find('.'));
      Shapes broken = whole;
      broken.erase(name);
      if (!is_optional) {
        EXPECT_NE(refusal(quantization, broken, contents).find(module), std::string::npos) << name;
      }
      for (const char* dtype : {"F64", "I16"}) {
        broken = whole;
        broken[name].first = dtype;
        EXPECT_NE(refusal(quantization, broken, contents), "accepted") << name << " as " << dtype;
      }
      for (size_t axis = 0; axis < tensor.second.size(); ++axis) {
        for (const int64_t size : {tensor.second[axis] + 1, int64_t{0}}) {
          broken = whole;
          broken[name].second[axis] = size;
          const std::string message = refusal(quantization, broken, contents);
          EXPECT_NE(message, "accepted") << name << " " << shape_string(broken[name].second);
          EXPECT_NE(message.find(module), std::string::npos) << message;
        }
      }
    }
  }

  TemporaryFolder folder_;
};

TEST_F(BrokenSources, ShapesOfMxfp4AreChecked) {
  const std::string quantization = R"({"quant_method": "mxfp4"})";
  expect_refusals(quantization,
                  {{"a.gate_up_proj_blocks", {"U8", {2, 6, 3, 16}}}, {"a.gate_up_proj_scales", {"U8", {2, 6, 3}}}});
  EXPECT_NE(refusal(quantization, {{"a_blocks", {"U8", {2, 6, 48}}}, {"a_scales", {"U8", {2, 6, 3}}}}).find("16]"),
            std::string::npos);
  EXPECT_NE(refusal(quantization,
                    {{"a_blocks", {"U8", {1, 1, 1, 16}}}, {"a_scales", {"U8", {1, 1, 1}}}, {"a", {"F32", {1, 32, 1}}}})
                .find("stored beside"),
            std::string::npos);
}

TEST_F(BrokenSources, ShapesOfGptqAreChecked) {
  const Shapes whole = {{"a.qweight", {"I32", {8, 16}}},
                        {"a.qzeros", {"I32", {2, 2}}},
                        {"a.scales", {"F16", {2, 16}}},
                        {"a.g_idx", {"I32", {64}}}};
  for (const char* version : {"gptq", "gptq_v2"}) {
    expect_refusals(cat(R"({"quant_method": "gptq", "bits": 4, "checkpoint_format": ")", version, "\"}"), whole, {},
                    {"a.g_idx"});
  }
  EXPECT_NE(refusal(R"({"quant_method": "gptq", "checkpoint_format": "marlin"})", whole).find("'marlin' is not read"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"quant_method": "gptq", "checkpoint_format": 2})", whole).find("'2' is not read"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"quant_method": "gptq"})", whole, {{"a.g_idx", "\x02"}}).find("name group 2 of 2"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"quant_method": "gptq"})", whole, {{"a.g_idx", "\xff\xff\xff\xff"}}).find("name group -1"),
            std::string::npos);
  Shapes more = whole;
  more["b.weight"] = {"I8", {4, 4}};
  EXPECT_NE(refusal(R"({"quant_method": "gptq"})", more).find("'b.weight' I8 [4, 4] is of no weight"),
            std::string::npos);
}

TEST_F(BrokenSources, ShapesOfAwqAreChecked) {
  const Shapes whole = {{"a.qweight", {"I32", {64, 2}}}, {"a.qzeros", {"I32", {2, 2}}}, {"a.scales", {"F16", {2, 16}}}};
  expect_refusals(R"({"quant_method": "awq", "bits": 4})", whole);
  EXPECT_NE(refusal(R"({"quant_method": "awq", "version": "GEMV"})", whole).find("'gemv' is not read"),
            std::string::npos);
}

TEST_F(BrokenSources, ShapesOfCompressedTensorsAreChecked) {
  const std::string quantization = R"({"quant_method": "compressed-tensors", "format": "pack-quantized"})";
  const std::map<std::string, std::string> shape = {{"a.weight_shape", {"\x10\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0", 16}}};
  const Shapes whole = {{"a.weight_packed", {"I32", {16, 8}}},
                        {"a.weight_scale", {"BF16", {16, 2}}},
                        {"a.weight_shape", {"I64", {2}}},
                        {"a.weight_zero_point", {"I32", {2, 2}}},
                        {"a.weight_g_idx", {"I32", {64}}}};
  expect_refusals(quantization, whole, shape, {"a.weight_zero_point", "a.weight_g_idx"});
  for (const std::string& size : {std::string(8, '\xff'), std::string(8, '\0'), std::string("\0\0\0\0\0\0\0\x7f", 8)})
    EXPECT_NE(refusal(quantization, whole, {{"a.weight_shape", std::string("\x10\0\0\0\0\0\0\0", 8) + size}})
                  .find("no dense packing"),
              std::string::npos);
  expect_refusals(quantization, {{"a.weight", {"I8", {16, 64}}}, {"a.weight_scale", {"F32", {16, 4}}}});
  expect_refusals(quantization, {{"a.weight_packed", {"U8", {16, 32}}}, {"a.weight_scale", {"U8", {16, 2}}}});
  expect_refusals(quantization, {{"a.weight_packed", {"U8", {16, 32}}},
                                 {"a.weight_scale", {"F8_E4M3", {16, 4}}},
                                 {"a.weight_global_scale", {"F32", {1}}}});
  for (const char* key : {"transform_config", "sparsity_config"}) {
    EXPECT_NE(refusal(cat(R"({"quant_method": "compressed-tensors", ")", key, R"(": {"format": "x"}})"), whole, shape)
                  .find(key),
              std::string::npos);
  }
}

TEST_F(BrokenSources, ShapesOfModelOptAreChecked) {
  const std::string quantization = R"({"quant_method": "modelopt", "quant_algo": "NVFP4"})";
  const Shapes whole = {
      {"a.weight", {"U8", {16, 32}}}, {"a.weight_scale", {"F8_E4M3", {16, 4}}}, {"a.weight_scale_2", {"F32", {1}}}};
  expect_refusals(quantization, whole);
  Shapes scaled = whole;
  scaled["a.pre_quant_scale"] = {"BF16", {64}};
  EXPECT_NE(refusal(quantization, scaled).find("a.pre_quant_scale"), std::string::npos);
}

TEST_F(BrokenSources, ShapesAndStatesOfBitsandbytesAreChecked) {
  const std::string quantization = R"({"quant_method": "bitsandbytes", "load_in_4bit": true})";
  const std::string name = "a.weight.quant_state.bitsandbytes__nf4";
  const auto state = [](const std::string& shape, const std::string& more = "") {
    return cat(R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": )", shape, more, "}");
  };
  const auto tensors = [&](const std::string& text) {
    return Shapes{{"a.weight", {"U8", {512, 1}}},
                  {"a.weight.absmax", {"F32", {16}}},
                  {"a.weight.quant_map", {"F32", {16}}},
                  {name, {"U8", {static_cast<int64_t>(text.size())}}}};
  };
  const auto with_state = [&](const std::string& text) { return refusal(quantization, tensors(text), {{name, text}}); };
  EXPECT_EQ(with_state(state("[16, 64]")), "accepted");
  for (const char* shape : {"[16, 65]", "[16]", "[0, 64]", "[-16, -64]", "[16, 64, 1]", "\"x\"", "null",
                            "[1099511627776, 1099511627776]", "[9223372036854775807, 64]", "[1e3, 1]"})
    EXPECT_NE(with_state(state(shape)).find("quant_state"), std::string::npos) << shape;
  for (const std::string text : {"[]", "{", "", "{}"}) EXPECT_NE(with_state(text + " "), "accepted") << text;
  std::string nothing = state("[16, 64]");
  nothing.replace(nothing.find("64,"), 2, "00");
  EXPECT_NE(with_state(nothing), "accepted") << "blocks of 0";
  Shapes nested = tensors(state("[16, 64]", R"(, "nested_blocksize": 4, "nested_offset": "x")"));
  const std::string nested_state = state("[16, 64]", R"(, "nested_blocksize": 4, "nested_offset": "x")");
  nested["a.weight.absmax"] = {"U8", {16}};
  nested["a.weight.nested_quant_map"] = {"F32", {256}};
  nested["a.weight.nested_absmax"] = {"F32", {4}};
  EXPECT_NE(refusal(quantization, nested, {{name, nested_state}}).find("nested_offset"), std::string::npos);
  nested["a.weight.nested_absmax"] = {"F32", {3}};
  EXPECT_NE(refusal(quantization, nested, {{name, nested_state}}).find("nested_absmax"), std::string::npos);
  const std::string eight = R"({"quant_method": "bitsandbytes", "load_in_8bit": true})";
  EXPECT_EQ(refusal(eight, {{"a.weight", {"I8", {16, 8}}}, {"a.SCB", {"F32", {16}}}}), "accepted");
  for (const Shapes& broken :
       {Shapes{{"a.weight", {"I8", {16, 8}}}, {"a.SCB", {"F32", {15}}}},
        Shapes{{"a.weight", {"I8", {16, 8}}}, {"a.SCB", {"F16", {16}}}},
        Shapes{{"a.weight", {"U8", {16, 8}}}, {"a.SCB", {"F32", {16}}}},
        Shapes{{"a.weight", {"I8", {128}}}, {"a.SCB", {"F32", {128}}}},
        Shapes{{"a.weight", {"I8", {0, 8}}}, {"a.SCB", {"F32", {0}}}}, Shapes{{"a.SCB", {"F32", {16}}}}})
    EXPECT_NE(refusal(eight, broken).find("'a."), std::string::npos);
}

TEST_F(BrokenSources, AMethodThatIsNotKnownIsRefusedByName) {
  EXPECT_NE(refusal(R"({"quant_method": "hqq"})", {{"a.qweight", {"I32", {8, 16}}}}).find("'hqq' are not read"),
            std::string::npos);
}

}  // namespace
}  // namespace gptq
