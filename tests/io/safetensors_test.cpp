// Safetensors files: valid ones are read, invalid ones refused with the reason, and written ones exact.
#include "io/safetensors.h"

#include <cstring>
#include <fstream>
#include <numeric>
#include <random>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/error.h"
#include "io/child.h"
#include "io/digest.h"
#include "tiny_model.h"

namespace gptq {
namespace {

namespace fs = std::filesystem;
using testing_io::become_nobody;
using testing_io::in_child;
using testing_io::limit_file_size;
using testing_model::read_file;
using testing_model::TemporaryFolder;

std::string little_endian(uint64_t value) { return {reinterpret_cast<const char*>(&value), sizeof value}; }

// A file with this header, padded to eight bytes, and this data.
std::string file_of(std::string header, const std::string& data) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return little_endian(header.size()) + header + data;
}

std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

class Safetensors : public ::testing::Test {
 protected:
  fs::path write(const std::string& bytes) {
    testing_model::write_file(path_, bytes);
    return path_;
  }
  // The error for these bytes; empty if they are accepted.
  std::string refusal(const std::string& bytes) { return refusal_of(write(bytes)); }
  static std::string refusal_of(const fs::path& path) {
    try {
      const SafetensorsFile file(path);
    } catch (const InputError& error) {
      return error.what();
    }
    return {};
  }
  void expect_refusal(const std::string& bytes, const std::string& reason) {
    const std::string message = refusal(bytes);
    EXPECT_NE(message.find(path_.string()), std::string::npos) << "names the file: " << message;
    EXPECT_NE(message.find(reason), std::string::npos) << "says '" << reason << "': " << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }

  TemporaryFolder folder_;
  fs::path path_ = folder_ / "model.safetensors";
};

std::string bytes_of(const SafetensorsFile& file, const StoredTensor& tensor) {
  std::string bytes(tensor.bytes, ' ');
  file.read(tensor, 0, tensor.bytes, bytes.data());
  return bytes;
}

TEST(ShapeString, ShowsTheFirstSizes) {
  EXPECT_EQ(shape_string({}), "[]");
  EXPECT_EQ(shape_string({1, 2, 3, 4, 5, 6, 7, 8}), "[1, 2, 3, 4, 5, 6, 7, 8]");
  EXPECT_EQ(shape_string(std::vector<int64_t>(60'000, 1)), "[1, 1, 1, 1, 1, 1, 1, 1, and 59992 more]");
}

TEST_F(Safetensors, ReadsTensorsInTheOrderOfTheirOffsets) {
  const SafetensorsFile file(write(file_of(R"({"b":{"dtype":"F32","shape":[2],"data_offsets":[24,32]},)"
                                           R"("__metadata__":{"format":"pt","by":"me"},)"
                                           R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})",
                                           floats({1, 2, 3, 4, 5, 6, 7, 8}))));
  ASSERT_EQ(file.tensors().size(), 2U);
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"by", "me"}, {"format", "pt"}}));
  const StoredTensor &a = file.tensors()[0], &b = file.tensors()[1];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a.bytes, 24U);
  const Matrix matrix = file.load(a);
  EXPECT_EQ(matrix.rows(), 2);
  EXPECT_EQ(matrix.cols(), 3);
  EXPECT_EQ(matrix.dtype(), DType::f32);
  EXPECT_EQ(matrix.row<float>(1)[2], 6);
  EXPECT_EQ(b.matrix().rows, 1) << "a vector is one row";
  EXPECT_EQ(file.load(b).row<float>(0)[1], 8);
  float part[2] = {};
  file.read(a, 12, 8, part);
  EXPECT_EQ(part[0], 4);
  EXPECT_EQ(part[1], 5);
  EXPECT_THROW(file.read(a, 20, 8, part), Error) << "beyond its end";
}

TEST_F(Safetensors, EveryDtypeOfTheFormatIsTaken) {
  const std::vector<std::pair<std::string, size_t>> bits = {
      {"F64", 64},    {"I64", 64},    {"U64", 64},    {"C64", 64},    {"F32", 32},    {"I32", 32}, {"U32", 32},
      {"F16", 16},    {"BF16", 16},   {"I16", 16},    {"U16", 16},    {"I8", 8},      {"U8", 8},   {"BOOL", 8},
      {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}};
  for (const auto& [dtype, width] : bits) {
    const size_t bytes = 8 * width / 8;
    const std::string header = cat(R"({"t":{"dtype":")", dtype, R"(","shape":[2,4],"data_offsets":[0,)", bytes, "]}}");
    const SafetensorsFile file(write(file_of(header, std::string(bytes, '\1'))));
    const StoredTensor& tensor = file.tensors().at(0);
    EXPECT_EQ(tensor.bytes, bytes) << dtype;
    EXPECT_EQ((TensorSpec{"t", dtype, {2, 4}}.bytes()), bytes) << dtype;
    if (const std::optional<DType> known = parse_safetensors_dtype(dtype)) {
      EXPECT_EQ(tensor.matrix().dtype, *known);
      EXPECT_EQ(safetensors_name(*known), dtype);
    } else {
      EXPECT_THROW(tensor.matrix(), InputError) << dtype << " is carried over, not computed with";
    }
  }
}

TEST_F(Safetensors, ScalarsEmptyTensorsAndEmptyFilesAreSound) {
  EXPECT_EQ(refusal(file_of("{}", "")), "");
  const SafetensorsFile file(write(file_of(R"({"none":{"dtype":"F32","shape":[0,4],"data_offsets":[4,4]},)"
                                           R"("one":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
                                           floats({7}))));
  ASSERT_EQ(file.tensors().size(), 2U);
  EXPECT_EQ(file.tensors()[0].name, "one");
  EXPECT_THROW(file.tensors()[0].matrix(), InputError) << "a scalar is no matrix";
  EXPECT_TRUE(file.tensors()[1].matrix().empty());
}

TEST_F(Safetensors, WhatIsNoFileOfTheFormatIsRefusedByName) {
  expect_refusal("", "0 bytes");
  expect_refusal("1234567", "7 bytes");
  expect_refusal(little_endian(1000) + "{}", "the download is not complete");
  expect_refusal(little_endian(UINT64_MAX) + "{}", "more than the format allows");
  expect_refusal(little_endian(100'000'001) + "{}", "more than the format allows");
  expect_refusal("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 7\n", "git lfs pull");
  expect_refusal("<!DOCTYPE html><html>Not found</html>", "not a safetensors file");
  EXPECT_NE(refusal_of(folder_ / "none.safetensors").find("No such file"), std::string::npos);
  EXPECT_NE(refusal_of(folder_.path()).find("not a regular file"), std::string::npos);
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0666), 0);
  EXPECT_NE(refusal_of(folder_ / "pipe").find("not a regular file"), std::string::npos) << "and is not waited for";
}

TEST_F(Safetensors, AFileThatMayNotBeReadIsRefused) {
  write(file_of("{}", ""));
  fs::permissions(folder_.path(), fs::perms::all);
  fs::permissions(path_, fs::perms::none);
  const std::string outcome = in_child([&] {
    become_nobody();
    const SafetensorsFile file(path_);
  });
  EXPECT_EQ(outcome, "InputError: " + path_.string() + ": cannot open it (Permission denied)");
}

TEST_F(Safetensors, BrokenHeadersAreRefusedByName) {
  const auto expect = [&](const std::string& header, const std::string& reason, size_t data = 8) {
    SCOPED_TRACE(header.substr(0, 100));
    expect_refusal(file_of(header, std::string(data, '\0')), reason);
  };
  expect("", "not a JSON object");
  expect("[]", "not a JSON object");
  expect("{", "not valid JSON");
  expect(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} x)", "not valid JSON");
  expect("{\"\xff\xfe\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "not valid JSON");
  expect(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,1e999]}})", "not valid JSON");
  expect("{\"t\":" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}", "nested deeper");
  expect(R"({"t":{"dtype":{"a":{"b":1}},"shape":[2],"data_offsets":[0,8]}})", "nested deeper");
  expect(
      R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
      "'t' twice");
  expect(R"({"t":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}})", "'dtype' twice");
  expect(R"({"__metadata__":[],"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "__metadata__");
  expect(R"({"__metadata__":{"step":3},"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "'step'");
  for (const char* entry :
       {"7", "[]", "{}", R"({"shape":[2],"data_offsets":[0,8]})", R"({"dtype":"F32","shape":[2]})",
        R"({"dtype":"F32","data_offsets":[0,8]})", R"({"dtype":1,"shape":[2],"data_offsets":[0,8]})",
        R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})", R"({"dtype":"F32","shape":[2],"data_offsets":[0,4,8]})"}) {
    expect(cat(R"({"t":)", entry, "}"), "tensor 't' lacks");
  }
  for (const char* shape : {"[-2]", "[2.0]", "[\"2\"]", "[null]", "[18446744073709551615]", "[99999999999999999999]"})
    expect(cat(R"({"t":{"dtype":"F32","shape":)", shape, R"(,"data_offsets":[0,8]}})"), "tensor 't' has a shape");
  for (const char* offsets : {"[-1,8]", "[0,8.0]", "[\"0\",8]", "[0,99999999999999999999]"})
    expect(cat(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":)", offsets, "}}"), "tensor 't' has data_offsets");
  for (const char* dtype : {"F31", "f32", "", "FLOAT"})
    expect(cat(R"({"t":{"dtype":")", dtype, R"(","shape":[2],"data_offsets":[0,8]}})"),
           "which the format does not know");
  for (const char* offsets : {"[0,12]", "[8,0]", "[18446744073709551608,18446744073709551615]"})
    expect(cat(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":)", offsets, "}}"), "tensor 't' lies at");
  for (const char* shape :
       {"[3]", "[1]", "[]", "[0]", "[4611686018427387906]", "[4294967296,4294967296,2]", "[9223372036854775807,0]"}) {
    expect(cat(R"({"t":{"dtype":"F32","shape":)", shape, R"(,"data_offsets":[0,8]}})"), "tensor 't' is F32");
  }
  for (const char* shape : {"[9223372036854775807,0]", "[0,4611686018427387904]", "[134217728,134217728,0]"})
    expect(cat(R"({"t":{"dtype":"F32","shape":)", shape, R"(,"data_offsets":[0,0]}})"), "larger than any file", 0);
  expect(R"({"t":{"dtype":"F4","shape":[15],"data_offsets":[0,8]}})", "tensor 't' is F4");
  expect(R"({"t":{"dtype":"F4","shape":[15],"data_offsets":[0,7]}})", "tensor 't' is F4", 7);
  const std::string first = R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)";
  expect(first + R"("u":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", "tensor 'u' overlaps", 12);
  expect(first + R"("u":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "overlaps", 8);
  expect(first + R"("u":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})", "gap of 4 bytes before tensor 'u'", 20);
  expect(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", "gap of 4 bytes before tensor 't'", 12);
  expect(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "4 bytes after its last tensor", 12);
  expect("{}", "8 bytes after its last tensor");
}

TEST_F(Safetensors, DataThatIsNotAlignedIsRefusedWithTheWayOut) {
  const std::string header = R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} )";
  ASSERT_NE(header.size() % 4, 0U);
  expect_refusal(little_endian(header.size()) + header + floats({1, 2}), "save the file again");
  expect_refusal(file_of(R"({"flag":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]},)"
                         R"("t":{"dtype":"F16","shape":[1],"data_offsets":[1,3]}})",
                         "abc"),
                 "tensor 't' does not start at a multiple");
  const std::string bytes = R"({"t":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}} )";
  EXPECT_EQ(refusal(little_endian(bytes.size()) + bytes + "ab"), "") << "bytes are aligned anywhere";
}

// For any header, opening the file succeeds or throws InputError, and all tensors lie inside the file.
TEST_F(Safetensors, MutatedFilesAreReadOrRefused) {
  const std::string sound = file_of(R"({"__metadata__":{"format":"pt"},)"
                                    R"("model.a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                                    R"("model.b":{"dtype":"BF16","shape":[2,2],"data_offsets":[24,32]},)"
                                    R"("model.c":{"dtype":"U8","shape":[3],"data_offsets":[32,35]}})",
                                    std::string(35, 'x'));
  ASSERT_EQ(refusal(sound), "");
  const std::string alphabet = "{}[]\",:-.e0129 \\u\x80\xff";
  std::mt19937 random(6);
  int accepted = 0, refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = sound;
    const size_t header_end = sound.size() - 35;
    for (size_t change = 0, changes = 1 + random() % 3; change < changes && !bytes.empty(); ++change) {
      const size_t at = random() % std::min(header_end, bytes.size());
      switch (random() % 5) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes[at] = alphabet[random() % alphabet.size()];
          break;
        case 2:
          bytes.resize(random() % bytes.size());
          break;
        case 3:
          bytes.erase(at, 1 + random() % 4);
          break;
        default:
          bytes.insert(at, bytes.substr(random() % bytes.size(), random() % 40));
      }
    }
    try {
      const SafetensorsFile file(write(bytes));
      size_t sum = 0;
      for (const StoredTensor& tensor : file.tensors()) {
        for (const char value : bytes_of(file, tensor)) sum += static_cast<unsigned char>(value);
      }
      EXPECT_LE(sum, bytes.size() * 255);
      ++accepted;
    } catch (const InputError&) {
      ++refused;
    }
  }
  EXPECT_EQ(accepted + refused, 2000);
  EXPECT_GT(accepted, 20);
  EXPECT_GT(refused, 1000);
}

TEST_F(Safetensors, AFileThatShrinksWhileItIsReadIsAnErrorThatNamesIt) {
  {
    SafetensorsWriter writer(path_, {{"t", "U8", {100'000}}});
    writer.write("t", std::string(100'000, 'q').data(), 100'000);
    writer.finish();
  }
  const SafetensorsFile file(path_);
  fs::resize_file(path_, 50'000);
  try {
    file.load(file.tensors()[0]);
    FAIL() << "no error";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find(path_.string() + ": became shorter"), std::string::npos) << error.what();
  }
}

TEST_F(Safetensors, ATensorMayBeWrittenInPiecesOneAfterTheOther) {
  SafetensorsWriter writer(path_, {{"t", "U8", {6}}});
  writer.write_part("t", 0, "ab", 2);
  EXPECT_THROW(writer.write_part("t", 3, "d", 1), Error) << "a gap";
  EXPECT_THROW(writer.write_part("t", 2, "cdefg", 5), Error) << "beyond its end";
  EXPECT_THROW(writer.finish(), Error) << "not whole";
  writer.write_part("t", 2, "cdef", 4);
  writer.finish();
  const SafetensorsFile file(path_);
  EXPECT_EQ(bytes_of(file, file.tensors()[0]), "abcdef");
}

TEST_F(Safetensors, WritesExactlyTheFormat) {
  const std::vector<TensorSpec> specs = {{"w", "F32", {1, 2}}, {"v", "F32", {1}}};
  SafetensorsWriter writer(path_, specs);
  const float values[] = {1, 2, 3};
  writer.write("v", values + 2, 4);
  writer.write("w", values, 8);
  writer.finish();
  std::string header = R"({"__metadata__":{"format":"pt"},"v":{"data_offsets":[8,12],"dtype":"F32","shape":[1]},)"
                       R"("w":{"data_offsets":[0,8],"dtype":"F32","shape":[1,2]}})";
  header.resize((header.size() + 8 + 63) / 64 * 64 - 8, ' ');
  EXPECT_EQ(read_file(path_), little_endian(header.size()) + header + floats({1, 2, 3}));
  EXPECT_EQ(fs::file_size(path_), SafetensorsWriter::file_size(specs));
  const SafetensorsFile file(path_);
  EXPECT_EQ(file.tensors()[0].name, "w") << "in the order given";
  EXPECT_EQ(file.metadata().at("format"), "pt");
}

TEST_F(Safetensors, TensorsOfAnyDtypesAndSizesAreAligned) {
  const std::vector<TensorSpec> specs = {{"flag", "BOOL", {3}}, {"h", "F16", {5}},   {"d", "F64", {1}},
                                         {"i", "I32", {3}},     {"h2", "BF16", {1}}, {"none", "F32", {0}},
                                         {"f4", "F4", {6}},     {"i2", "I32", {1}}};
  SafetensorsWriter writer(path_, specs);
  for (const TensorSpec& spec : specs) {
    if (spec.bytes() > 0) writer.write(spec.name, std::string(spec.bytes(), spec.name[0]).data(), spec.bytes());
  }
  writer.finish();
  const SafetensorsFile file(path_);
  std::vector<std::string> names;
  for (const StoredTensor& tensor : file.tensors()) {
    if (tensor.bytes == 0) continue;
    names.push_back(tensor.name);
    EXPECT_EQ(bytes_of(file, tensor), std::string(tensor.bytes, tensor.name[0]));
  }
  EXPECT_EQ(names, (std::vector<std::string>{"d", "i", "i2", "h", "h2", "flag", "f4"}));
}

TEST_F(Safetensors, AWriterHoldsItsCallerToTheLayout) {
  const float values[] = {1, 2};
  SafetensorsWriter writer(path_, {{"a", "F32", {2}}, {"b", "F32", {2}}});
  EXPECT_THROW(writer.write("c", values, 8), Error) << "unknown";
  EXPECT_THROW(writer.write("a", values, 4), Error) << "another size";
  writer.write("a", values, 8);
  EXPECT_THROW(writer.write("a", values, 8), Error) << "twice";
  EXPECT_THROW(writer.finish(), Error) << "b was never written";
  writer.write("b", values, 8);
  writer.finish();
  EXPECT_THROW(writer.write("b", values, 8), Error) << "finished";
  SafetensorsWriter again(path_, {{"a", "F32", {2}}, {"b", "F32", {2}}});
  EXPECT_TRUE(again.holds("b", digest(values, 8))) << "a file of the same layout keeps its contents";
  EXPECT_FALSE(SafetensorsWriter(path_, {{"a", "F32", {2}}}).holds("a", digest(values, 8))) << "another one does not";
  const fs::path other = folder_ / "other.safetensors";
  EXPECT_THROW(SafetensorsWriter(other, {{"a", "F32", {2}}, {"a", "F32", {2}}}), Error) << "one name twice";
  EXPECT_THROW(SafetensorsWriter(other, {{"a", "F31", {2}}}), InputError) << "no such dtype";
  EXPECT_THROW(SafetensorsWriter(other, {{"a", "F32", {1L << 62}}}), InputError) << "more bytes than there are";
  EXPECT_THROW(SafetensorsWriter(other, {{"a", "U8", {1L << 62}}, {"b", "U8", {1L << 62}}}), InputError);
  EXPECT_FALSE(fs::exists(other)) << "nothing is created for a layout that is refused";
}

TEST_F(Safetensors, AFullDiskIsReportedBeforeAnythingIsWrittenWithBothNumbers) {
  const std::string outcome = in_child([&] {
    limit_file_size(4096);
    SafetensorsWriter writer(path_, {{"a", "F32", {100'000}}});
  });
  EXPECT_EQ(outcome.rfind("InputError: " + path_.string(), 0), 0U) << outcome;
  EXPECT_NE(outcome.find("400128 bytes are needed"), std::string::npos) << outcome;
  EXPECT_NE(outcome.find("free"), std::string::npos) << outcome;
}

TEST(Shapes, ArePrintedAsLists) {
  EXPECT_EQ(shape_string({}), "[]");
  EXPECT_EQ(shape_string({4}), "[4]");
  EXPECT_EQ(shape_string({4096, 11008}), "[4096, 11008]");
}

}  // namespace
}  // namespace gptq
