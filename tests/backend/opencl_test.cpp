// What the OpenCL backend does besides ops: its devices, its memory and its errors. Skipped where there is no device.
#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <string>

#include "backend/devices.h"

// PoCL's compiler keeps memory until the program ends.
extern "C" const char* __lsan_default_suppressions() {  // NOLINT: the name that LeakSanitizer looks for
  return "leak:libpocl\nleak:libLLVM\nleak:libclang-cpp\n";
}

namespace gptq {
namespace {

// Variables of the environment, for the time of a test.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Environment() { unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
};

class Opencl : public testing::Test {
 protected:
  void SetUp() override {
    try {
      backend_ = open_xpu();
    } catch (const InputError& error) {
      GTEST_SKIP() << error.what();
    }
  }
  static std::string refusal(const char* device) {
    try {
      open_backend(device);
    } catch (const InputError& error) {
      return error.what();
    }
    return "";
  }
  std::unique_ptr<Backend> backend_;
};

TEST_F(Opencl, DevicesAreHiddenOnRequest) {
  const Environment none("GPTQ_OPENCL_DEVICES", "none");
  EXPECT_EQ(refusal("xpu:0"), "xpu:0: GPTQ_OPENCL_DEVICES=none hides OpenCL's devices");
  for (const DeviceInfo& device : list_devices()) EXPECT_FALSE(device.name.starts_with("xpu")) << device.name;
}

TEST_F(Opencl, ADeviceThatIsNotThereIsRefusedAndThoseThereAreNamed) {
  const Environment all("GPTQ_OPENCL_DEVICES", "all");
  EXPECT_TRUE(refusal("xpu:999").starts_with("xpu:999: this machine shows ")) << refusal("xpu:999");
}

TEST_F(Opencl, DevicesAreListedWithDriverAndMemory) {
  const Environment all("GPTQ_OPENCL_DEVICES", "all");
  const std::vector<DeviceInfo> devices = list_devices();
  const auto first = std::find_if(devices.begin(), devices.end(), [](const auto& d) { return d.name == "xpu:0"; });
  ASSERT_NE(first, devices.end());
  EXPECT_NE(first->description.find(", driver "), std::string::npos) << first->description;
  EXPECT_GT(first->total_bytes, 0);
}

TEST_F(Opencl, MoreMemoryThanThereIsIsRefusedAndWorkGoesOn) {
  try {
    backend_->allocate(size_t{1} << 50);
    FAIL() << "a petabyte";
  } catch (const OutOfMemory& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("xpu:0 is out of memory: 1125899906842624 bytes asked for"))
        << error.what();
  }
  const float value = 3;
  const Matrix matrix = to_device(*backend_, DType::f32, 1, 1, &value);
  EXPECT_EQ(to_host<float>(*backend_, matrix)[0], 3);
}

TEST_F(Opencl, TilesOfAllSizesGiveTheSameBits) {
  const int64_t rows = 150, cols = 141, inner = 75;
  Operand x(*backend_, DType::bf16, rows, inner, normal(1), Placed::oddly),
      w(*backend_, DType::f32, cols, inner, normal(2), Placed::oddly);
  const auto product_with = [&](const char* tiles) {
    const Environment asked("GPTQ_OPENCL_TILES", tiles);
    Matrix y(*backend_, DType::f32, rows, cols), h(*backend_, DType::f32, inner, inner);
    Matrix dropped(*backend_, DType::i32, 1, 1);
    backend_->run(ops::Clear{.y = h});
    backend_->run(ops::Clear{.y = dropped});
    backend_->run(ops::Linear{.x = x.device(), .w = w.device(), .y = y});
    backend_->run(ops::AddGram{.x = x.device(), .h = h, .dropped = dropped});
    return std::pair(to_host<float>(*backend_, y), to_host<float>(*backend_, h));
  };
  const auto of_cpu = product_with("cpu");
  EXPECT_EQ(product_with("small"), of_cpu);
  EXPECT_EQ(product_with("large"), of_cpu);
}

TEST_F(Opencl, CopiesOfAnyPartOfABlock) {
  constexpr int64_t kRows = 7, kCols = 9;
  for (const int64_t cols : {1, 4, 9}) {
    for (const int64_t before : {0, 3, 8, 20}) {
      // Rows of `cols` elements that begin `before` elements after the block, and end before the next or go beyond it.
      Matrix block(*backend_, DType::f32, 1, before + kRows * kCols);
      backend_->run(ops::Clear{.y = block});
      MatrixView part(static_cast<float*>(block.view().data) + before, DType::f32, kRows, cols);
      part.stride = kCols;
      std::vector<float> values(static_cast<size_t>(kRows * cols)), back(values.size());
      std::iota(values.begin(), values.end(), 1.0F);
      backend_->upload(part, values.data());
      backend_->download(back.data(), part);
      EXPECT_EQ(back, values) << cols << " of " << kCols << ", " << before << " before";
      const auto all = to_host<float>(*backend_, block);
      EXPECT_EQ(std::count(all.begin(), all.end(), 0.0F), before + kRows * (kCols - cols));
    }
  }
}

TEST_F(Opencl, CopiesOfADiagonal) {
  constexpr int64_t kSize = 6;
  Matrix matrix(*backend_, DType::f32, kSize, kSize);
  backend_->run(ops::Clear{.y = matrix});
  MatrixView diagonal(matrix.view().data, DType::f32, kSize, 1);
  diagonal.stride = kSize + 1;
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  backend_->upload(diagonal, values.data());
  std::vector<float> back(values.size());
  backend_->download(back.data(), diagonal);
  EXPECT_EQ(back, values);
  const auto all = to_host<float>(*backend_, matrix);
  EXPECT_EQ(std::count(all.begin(), all.end(), 0.0F), kSize * (kSize - 1));
}

TEST_F(Opencl, AMatrixOfTheHostIsRefused) {
  Matrix host(host_memory(), DType::f32, 2, 2), device(*backend_, DType::f32, 2, 2);
  EXPECT_THROW(backend_->run(ops::Convert{.x = host, .y = device}), DeviceError);
}

TEST_F(Opencl, ReleasedMemoryIsHeldUntilItIsTrimmed) {
  { const Matrix matrix(*backend_, DType::f32, 100, 100); }
  EXPECT_EQ(backend_->memory_use().bytes, 0);
  EXPECT_EQ(backend_->memory_use().held, 40000);
  EXPECT_EQ(backend_->memory_use().peak, 40000);
  backend_->trim();
  EXPECT_EQ(backend_->memory_use().held, 0);
}

// So a batch may pass in one piece or in several.
TEST_F(Opencl, ARowOfAProductIsTheSameHoweverManyGoWithIt) {
  for (const DType dtype : float_dtypes()) {
    Operand x(*backend_, dtype, 130, 300, normal(3)), w(*backend_, dtype, 70, 300, normal(4)),
        whole(*backend_, dtype, 130, 70), parts(*backend_, dtype, 130, 70);
    backend_->run(ops::Linear{.x = x.device(), .w = w.device(), .y = whole.device()});
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 1}, {1, 64}, {65, 65}}) {
      backend_->run(ops::Linear{
          .x = x.device().row_range(first, count), .w = w.device(), .y = parts.device().row_range(first, count)});
    }
    const Matrix one = whole.fetch(), other = parts.fetch();
    EXPECT_EQ(std::memcmp(one.view().data, other.view().data, one.bytes()), 0);
  }
}

// Pairs of f32 have twice the digits of one: results are as good as those of f64 once they are rounded.
TEST_F(Opencl, SystemsAreSolvedAsWellWithoutDoubles) {
  const Environment without("GPTQ_OPENCL_NO_DOUBLES", "1");
  const std::unique_ptr<Backend> backend = open_xpu();
  for (const int64_t n : {1, 9, 65}) {
    Operand a(*backend, DType::f32, 20, n * n,
              [noise = normal(1, 0.02 / static_cast<double>(n)), n](int64_t row, int64_t i) mutable {
                const int64_t r = i / n, c = i % n;
                if (row == 2) return r == c ? -1.0 : 0.0;  // not positive definite
                return r == c ? 1 / (1.0 + static_cast<double>(r)) : c < r ? noise(r, c) : 1e30;
              }),
        x(*backend, DType::f32, 20, n, normal(2));
    backend->run(ops::SolveSystems{.a = a.device(), .ridge = 1e-2F, .x = x.device()});
    reference(ops::SolveSystems{.a = a.host, .ridge = 1e-2F, .x = x.host});
    expect_close(x, [&](int64_t r, int64_t c) { return 2 * kUnit * std::abs(element(x.host, r, c)) + 1e-7; });
  }
}

}  // namespace
}  // namespace gptq
