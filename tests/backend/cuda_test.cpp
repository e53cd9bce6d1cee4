// What only a GPU can get wrong: results that depend on how much is computed at once, sums on tensor cores, memory that
// is still being copied, memory that runs out. Without a GPU every test here is skipped; opening one that is not there
// is tested everywhere.
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include <gtest/gtest.h>

#include "backend/devices.h"
#include "backend/registry.h"

namespace gptq {
namespace {

class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    try {
      backend_ = open_backend("cuda:0");
    } catch (const InputError& error) {
      GTEST_SKIP() << error.what();
    }
  }
  Backend& backend() { return *backend_; }
  // Normal values in a dtype.
  Matrix random(int64_t rows, int64_t cols, DType dtype, unsigned seed, double deviation = 1) {
    Matrix host(host_memory(), dtype, rows, cols);
    const Generator value = normal(seed, deviation);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) set_element(host, r, c, value(r, c));
    }
    return to_device(backend(), dtype, rows, cols, host.view().data);
  }
  std::vector<std::byte> bytes(ConstMatrixView view) {
    std::vector<std::byte> host(static_cast<size_t>(view.size()) * size_of(view.dtype));
    backend().download(host.data(), view);
    return host;
  }

 private:
  std::unique_ptr<Backend> backend_;
};

TEST(CudaDevices, OneThatIsNotThereIsAnErrorThatSaysWhatThereIs) {
  try {
    open_backend("cuda:99");
    FAIL() << "cuda:99 was opened";
  } catch (const InputError& error) {
    const std::string said = error.what();
    EXPECT_NE(said.find("cuda:99"), std::string::npos) << said;
    EXPECT_TRUE(said.find("cpu") != std::string::npos || said.find("GPU") != std::string::npos) << said;
  }
}

// So a batch may pass in one piece or in several.
TEST_F(Cuda, ARowOfAProductIsTheSameHoweverManyGoWithIt) {
  for (const DType dtype : float_dtypes()) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{576, 192}, {1536, 576}, {4096, 1024}, {1024, 4096}}) {
      const Matrix x = random(4096, k, dtype, 1), w = random(n, k, dtype, 2);
      Matrix y(backend(), dtype, 4096, n);
      backend().run(ops::Linear{.x = x, .w = w, .y = y});
      for (const int64_t count : {1, 100, 512, 2048}) {
        Matrix part(backend(), dtype, count, n);
        backend().run(ops::Linear{.x = x.view().row_range(0, count), .w = w, .y = part});
        EXPECT_TRUE(bytes(part) == bytes(y.view().row_range(0, count)))
            << name_of(dtype) << ", " << count << " rows of " << k << " -> " << n;
      }
    }
  }
}

TEST_F(Cuda, TheSameCallsGiveTheSameBits) {
  const Matrix x = random(3000, 1536, DType::bf16, 3), w = random(576, 1536, DType::f32, 4, 0.02);
  const auto once = [&] {
    Matrix h(backend(), DType::f32, 1536, 1536), dropped(backend(), DType::i32, 1, 1),
        factor(backend(), DType::f32, 1536, 1536);
    backend().run(ops::Clear{.y = h});
    backend().run(ops::Clear{.y = dropped});
    backend().run(ops::AddGram{.x = x, .h = h, .dropped = dropped});
    std::vector<int32_t> order(1536);
    for (int32_t i = 0; i < 1536; ++i) order[i] = 1535 - i;
    backend().run(ops::PermuteSymmetric{.h = h, .order = order, .damp = 30, .y = factor});
    EXPECT_TRUE(backend().run(ops::Factor{.h = factor}));
    Matrix scales(backend(), DType::f32, 576, 12), zeros(backend(), DType::u8, 576, 12),
        feedback(backend(), DType::f32, 576, 128), codes(backend(), DType::u8, 576, 128),
        errors(backend(), DType::f32, 576, 128), loss(backend(), DType::f32, 576, 1);
    backend().run(ops::Clear{.y = loss});
    backend().run(ops::FindGrid{
        .w = w, .group_size = 128, .search = {4, true, 40, 0.0175F, 2}, .scales = scales, .zeros = zeros});
    backend().run(
        ops::Linear{.x = w.view().col_range(0, 1024), .w = factor.view().block(1024, 128, 0, 1024), .y = feedback});
    backend().run(ops::QuantizeColumns{.w = w.view().col_range(1024, 128),
                                       .feedback = feedback,
                                       .factor = factor.view().block(1024, 128, 1024, 128),
                                       .groups = std::vector<int32_t>(128, 8),
                                       .grid = {scales.view(), zeros.view(), 4},
                                       .codes = codes,
                                       .errors = errors,
                                       .loss = loss});
    std::vector<std::byte> all = bytes(factor);
    for (const ConstMatrixView view : {ConstMatrixView(codes), ConstMatrixView(errors), ConstMatrixView(loss)}) {
      const std::vector<std::byte> more = bytes(view);
      all.insert(all.end(), more.begin(), more.end());
    }
    return all;
  };
  EXPECT_TRUE(once() == once());
}

// Tensor cores truncate as they add, which biases the diagonal, a sum of squares. The error is stated here: below
// 2^-15 of the diagonal, and off the diagonal below 2^-15 of what the diagonal's elements allow.
TEST_F(Cuda, HessiansOfManyTokensKeepTheirBits) {
  constexpr int64_t kTokens = 16384, kWidth = 256;
  for (const DType dtype : float_dtypes()) {
    Matrix host(host_memory(), dtype, kTokens, kWidth);
    const Generator value = normal(5);
    std::vector<double> widened(static_cast<size_t>(kTokens * kWidth));
    for (int64_t r = 0; r < kTokens; ++r) {
      for (int64_t c = 0; c < kWidth; ++c) {
        set_element(host, r, c, 1 + value(r, c));
        widened[r * kWidth + c] = element(host, r, c);
      }
    }
    std::vector<double> sums(static_cast<size_t>(kWidth * kWidth));
    for (int64_t r = 0; r < kTokens; ++r) {
      const double* row = &widened[r * kWidth];
      for (int64_t i = 0; i < kWidth; ++i) {
        for (int64_t j = 0; j <= i; ++j) sums[i * kWidth + j] += row[i] * row[j];
      }
    }
    const Matrix x = to_device(backend(), dtype, kTokens, kWidth, host.view().data);
    Matrix h(backend(), DType::f32, kWidth, kWidth), dropped(backend(), DType::i32, 1, 1);
    backend().run(ops::Clear{.y = h});
    backend().run(ops::Clear{.y = dropped});
    backend().run(ops::AddGram{.x = x, .h = h, .dropped = dropped});
    const std::vector<float> got = to_host<float>(backend(), h);
    double on = 0, off = 0;
    for (int64_t i = 0; i < kWidth; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        const double size = std::sqrt(sums[i * kWidth + i] * sums[j * kWidth + j]);
        double& worst = i == j ? on : off;
        worst = std::max(worst, std::abs(got[i * kWidth + j] - sums[i * kWidth + j]) / size);
      }
    }
    RecordProperty(cat("diagonal_", name_of(dtype)), cat(on));
    RecordProperty(cat("off_diagonal_", name_of(dtype)), cat(off));
    std::printf("%s: relative error on the diagonal %.2g, off it %.2g\n", std::string(name_of(dtype)).c_str(), on, off);
    EXPECT_LT(on, 0x1p-15);
    EXPECT_LT(off, 0x1p-15);
  }
}

TEST_F(Cuda, LargeFactorizationsAreRight) {
  constexpr int64_t kN = 2048;
  const Matrix x = random(kN + 500, kN, DType::bf16, 6);
  Matrix h(backend(), DType::f32, kN, kN), dropped(backend(), DType::i32, 1, 1), F(backend(), DType::f32, kN, kN),
      product(backend(), DType::f32, kN, kN), transposed(backend(), DType::f32, kN, kN);
  backend().run(ops::Clear{.y = h});
  backend().run(ops::Clear{.y = dropped});
  backend().run(ops::AddGram{.x = x, .h = h, .dropped = dropped});
  std::vector<int32_t> order(kN);
  for (int32_t i = 0; i < kN; ++i) order[i] = i;
  backend().run(ops::PermuteSymmetric{.h = h, .order = order, .damp = 5, .y = F});
  ASSERT_TRUE(backend().run(ops::Factor{.h = F}));
  const std::vector<float> factor = to_host<float>(backend(), F), gram = to_host<float>(backend(), h);
  for (int64_t i = 0; i < kN; i += 173) {
    for (int64_t j = 0; j <= i; j += 91) {
      double sum = 0;
      for (int64_t k = i; k < kN; ++k) sum += static_cast<double>(factor[k * kN + i]) * factor[k * kN + j];
      const double expected = gram[i * kN + j] + (i == j ? 5 : 0);
      EXPECT_NEAR(sum, expected, 1e-5 * std::sqrt(static_cast<double>(gram[i * kN + i]) * gram[j * kN + j]));
    }
  }
}

// Long sequences and grouped heads, as models have them; some rows against the reference.
TEST_F(Cuda, AttentionOverLongSequences) {
  for (const int64_t head_dim : {64, 128, 256}) {
    const std::vector<int64_t> offsets = {0, 200, 900};
    const AttentionShape shape = {2, 1, head_dim, 0.09F};
    Matrix q(host_memory(), DType::bf16, 900, 2 * head_dim), k(host_memory(), DType::bf16, 900, head_dim),
        v(host_memory(), DType::bf16, 900, head_dim), expected(host_memory(), DType::bf16, 900, 2 * head_dim);
    for (Matrix* m : {&q, &k, &v}) {
      const Generator value = normal(static_cast<unsigned>(m->cols() + (m == &k)));
      for (int64_t r = 0; r < m->rows(); ++r) {
        for (int64_t c = 0; c < m->cols(); ++c) set_element(*m, r, c, value(r, c));
      }
    }
    reference(ops::Attention{.q = q, .k = k, .v = v, .offsets = offsets, .shape = shape, .y = expected});
    const auto send = [&](const Matrix& m) {
      return to_device(backend(), DType::bf16, m.rows(), m.cols(), m.view().data);
    };
    const Matrix device_q = send(q), device_k = send(k), device_v = send(v);
    Matrix y(backend(), DType::bf16, 900, 2 * head_dim), got(host_memory(), DType::bf16, 900, 2 * head_dim);
    backend().run(
        ops::Attention{.q = device_q, .k = device_k, .v = device_v, .offsets = offsets, .shape = shape, .y = y});
    backend().download(got.view().data, y);
    for (int64_t r = 0; r < 900; ++r) {
      for (int64_t c = 0; c < got.cols(); ++c) {
        // v's largest is about 5; a probability is rounded to 8 bits, and the result once more.
        ASSERT_NEAR(element(got, r, c), element(expected, r, c),
                    5 * 0x1p-8 + 0x1p-7 * std::abs(element(expected, r, c)))
            << head_dim << ": row " << r << ", column " << c;
      }
    }
  }
}

TEST_F(Cuda, StagingMemoryIsNotGivenOutAgainWhileItIsCopied) {
  constexpr int64_t kSize = int64_t{16} << 20;
  Memory& staging = backend().staging_memory();
  std::vector<Matrix> sent;
  for (int round = 0; round < 20; ++round) {
    Matrix host(staging, DType::u8, 1, kSize);
    std::memset(host.view().data, round + 1, static_cast<size_t>(kSize));
    sent.push_back(to_device(backend(), DType::u8, 1, kSize, host.view().data));
  }
  for (int round = 0; round < 20; ++round) {
    const std::vector<uint8_t> got = to_host<uint8_t>(backend(), sent[round]);
    EXPECT_EQ(std::count(got.begin(), got.end(), static_cast<uint8_t>(round + 1)), kSize) << "round " << round;
  }
}

TEST_F(Cuda, WhatDoesNotFitIsAnErrorWithNumbersAndTheDeviceGoesOn) {
  const std::unique_ptr<Backend> limited = open_backend("cuda:0", {.memory_bytes = 1 << 20});
  try {
    const Matrix large(*limited, DType::u8, 1, 2 << 20);
    FAIL() << "allocated more than its limit";
  } catch (const OutOfMemory& error) {
    EXPECT_NE(std::string(error.what()).find("2097152"), std::string::npos) << error.what();
  }
  EXPECT_THROW(Matrix(backend(), DType::u8, int64_t{1} << 30, int64_t{1} << 20), OutOfMemory);
  const Matrix small = random(4, 4, DType::f32, 7);
  EXPECT_EQ(to_host<float>(backend(), small).size(), 16U);
}

TEST_F(Cuda, TrimmingGivesBackWhatIsHeld) {
  { const Matrix large(backend(), DType::u8, 1, int64_t{512} << 20); }
  EXPECT_GE(backend().memory_use().held, int64_t{512} << 20);
  backend().trim();
  EXPECT_LT(backend().memory_use().held, int64_t{64} << 20);
}

TEST_F(Cuda, TheClockAddsUpToTheTimeThatPasses) {
  const Matrix x = random(2048, 2048, DType::bf16, 8);
  Matrix y(backend(), DType::bf16, 2048, 2048);
  backend().wait();
  backend().set_stage("forward");
  for (int i = 0; i < 100; ++i) backend().run(ops::Linear{.x = x, .w = x, .y = y});
  double products = 0;
  for (const auto& [stage, op, seconds] : backend().device_seconds()) {
    if (stage == "forward" && op == "linear") products = seconds;
  }
  backend().set_stage("");
  EXPECT_GT(products, 100 * 2.0 * 2048 * 2048 * 2048 / 3e15);  // faster than any GPU
  EXPECT_LT(products, 10);
}

}  // namespace
}  // namespace gptq
