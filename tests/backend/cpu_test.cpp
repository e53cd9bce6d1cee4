// What the CPU backend promises beyond the ops: the same bits for any number of threads, and its choice of kernels.
#include <algorithm>

#include "backend/devices.h"
#include "backend/registry.h"

namespace gptq {
namespace {

// Runs `compute` on backends of 1 and of 3 threads; the matrices it returns must be the same bytes.
void expect_same_bits(const std::function<Matrix(Backend&)>& compute) {
  const auto one = open_backend("cpu", {.threads = 1}), three = open_backend("cpu", {.threads = 3});
  const Matrix a = compute(*one), b = compute(*three);
  ASSERT_EQ(a.bytes(), b.bytes());
  EXPECT_EQ(std::memcmp(a.view().data, b.view().data, a.bytes()), 0);
}

Matrix random(Backend& backend, int64_t rows, int64_t cols, unsigned seed) {
  Matrix m(backend, DType::f32, rows, cols);
  const Generator value = normal(seed);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) m.row<float>(r)[c] = static_cast<float>(value(r, c));
  }
  return m;
}

Matrix filled(Backend& backend, DType dtype, int64_t rows, int64_t cols) {
  Matrix m(backend, dtype, rows, cols);
  std::memset(m.view().data, 0, m.bytes());
  return m;
}

// x' x of more rows than columns
Matrix gram(Backend& backend, int64_t n) {
  Matrix h = filled(backend, DType::f32, n, n), dropped = filled(backend, DType::i32, 1, 1);
  backend.run(ops::AddGram{.x = random(backend, n + 50, n, 1), .h = h, .dropped = dropped});
  return h;
}

TEST(CpuThreads, DoNotChangeTheBitsOfLinear) {
  expect_same_bits([](Backend& backend) {
    Matrix y(backend, DType::f32, 700, 500);
    backend.run(ops::Linear{.x = random(backend, 700, 130, 1),
                            .w = random(backend, 500, 130, 2),
                            .bias = random(backend, 1, 500, 3),
                            .y = y});
    return y;
  });
}

TEST(CpuThreads, DoNotChangeTheBitsOfAddGram) {
  expect_same_bits([](Backend& backend) { return gram(backend, 700); });
}

TEST(CpuThreads, DoNotChangeTheBitsOfFactor) {
  expect_same_bits([](Backend& backend) {
    Matrix h = gram(backend, 700);
    EXPECT_TRUE(backend.run(ops::Factor{.h = h}));
    return h;
  });
}

TEST(CpuThreads, DoNotChangeTheBitsOfAttention) {
  expect_same_bits([](Backend& backend) {
    Matrix y(backend, DType::f32, 300, 9 * 64);
    const std::vector<int64_t> offsets = {0, 170, 300};
    backend.run(ops::Attention{.q = random(backend, 300, 9 * 64, 1),
                               .k = random(backend, 300, 3 * 64, 2),
                               .v = random(backend, 300, 3 * 64, 3),
                               .offsets = offsets,
                               .shape = {9, 3, 64, 0.125F},
                               .y = y});
    return y;
  });
}

TEST(CpuThreads, DoNotChangeTheBitsOfAttentionInAWindow) {
  expect_same_bits([](Backend& backend) {
    Matrix y(backend, DType::f32, 300, 9 * 64);
    AttentionShape shape = {9, 3, 64, 0.125F};
    shape.window = 70;
    shape.soft_cap = 20;
    backend.run(ops::Attention{.q = random(backend, 300, 9 * 64, 1),
                               .k = random(backend, 300, 3 * 64, 2),
                               .v = random(backend, 300, 3 * 64, 3),
                               .offsets = std::vector<int64_t>{0, 170, 300},
                               .shape = shape,
                               .y = y});
    return y;
  });
}

TEST(CpuThreads, DoNotChangeTheBitsOfQuantizeColumns) {
  expect_same_bits([](Backend& backend) {
    const int64_t rows = 200, cols = 128;
    Matrix factor = gram(backend, cols), w = random(backend, rows, cols, 2);
    EXPECT_TRUE(backend.run(ops::Factor{.h = factor}));
    Matrix scales(backend, DType::f32, rows, 2), zeros(backend, DType::u8, rows, 2);
    backend.run(
        ops::FindGrid{.w = w, .group_size = 64, .search = {4, true, 40, 0.0175F, 2}, .scales = scales, .zeros = zeros});
    std::vector<int32_t> groups(cols);
    for (int64_t k = 64; k < cols; ++k) groups[k] = 1;
    Matrix codes(backend, DType::u8, rows, cols), errors(backend, DType::f32, rows, cols);
    Matrix loss = filled(backend, DType::f32, rows, 1);
    backend.run(ops::QuantizeColumns{.w = w,
                                     .feedback = random(backend, rows, cols, 3),
                                     .factor = factor,
                                     .groups = groups,
                                     .grid = {scales, zeros, 4},
                                     .codes = codes,
                                     .errors = errors,
                                     .loss = loss});
    return errors;
  });
}

TEST(CpuKernels, AreChosenByName) {
  for (const Device& device : devices()) {
    if (device.name.rfind("cpu_", 0) != 0) continue;
    const std::string isa = device.name.substr(4);
    EXPECT_NE(device.open()->description().find(", " + isa + ", OpenBLAS "), std::string::npos);
  }
}

TEST(CpuKernels, RefuseAnUnknownInstructionSet) {
  try {
    open_cpu_with("avx9000");
    FAIL() << "opened";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("baseline"), std::string::npos) << error.what();
  }
}

TEST(CpuBackend, SaysHowManyThreadsItHas) {
  EXPECT_NE(open_backend("cpu", {.threads = 1})->description().find(", 1 thread, "), std::string::npos);
  EXPECT_NE(open_backend("cpu", {.threads = 3})->description().find(", 3 threads, "), std::string::npos);
  EXPECT_EQ(open_backend("cpu")->name(), "cpu");
}

TEST(CpuBackend, ComputesInBf16WhatIsStoredSoWhereTheProcessorMultipliesIt) {
  const auto backend = open_backend("cpu");
  const std::string isa = backend->description();  // names the kernels that were chosen
  const bool has_pairs = isa.find("bf16") != std::string::npos || isa.find("amx") != std::string::npos;
  EXPECT_EQ(backend->compute_dtype(DType::f32), DType::f32);
  EXPECT_EQ(backend->compute_dtype(DType::f16), DType::f32);
  EXPECT_EQ(backend->compute_dtype(DType::bf16), has_pairs ? DType::bf16 : DType::f32);
  EXPECT_EQ(backend->residual_dtype(DType::bf16), DType::f32);
}

TEST(Backends, ThatAreUnknownAreRefusedWithAListOfWhatThereIs) {
  try {
    open_backend("tpu");
    FAIL() << "opened";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("cpu"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace gptq
