// The backends that parity tests run on, and operands that exist twice: on the backend under test and on the host, for
// reference().
#pragma once

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "backend/backend.h"
#include "backend/registry.h"
#include "base/error.h"

namespace gptq {

// A device that has memory and nothing else. Its pointers are addresses that no one may touch, so a fallback that reads
// device memory without a download ends the test program.
class MemoryOnlyBackend final : public Backend {
 public:
  std::string name() const override { return "memory-only"; }
  std::string description() const override { return "memory without ops"; }
  DType compute_dtype(DType stored) const override { return stored; }
  void wait() override {}
  void* allocate(size_t bytes) override {
    void* address = mmap(nullptr, bytes + 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) throw DeviceError("no addresses left");
    blocks_[static_cast<std::byte*>(address)].resize(bytes + 1);
    return address;
  }
  MemoryUse memory_use() const override { return {}; }
  void release(void* block, size_t bytes) noexcept override {
    blocks_.erase(static_cast<std::byte*>(block));
    munmap(block, bytes + 1);
  }
  void copy_in(MatrixView to, const void* from) override {
    const size_t bytes = static_cast<size_t>(to.cols) * size_of(to.dtype);
    for (int64_t r = 0; r < to.rows; ++r) {
      std::memcpy(contents(to.row_range(r, 1).data), static_cast<const std::byte*>(from) + r * bytes, bytes);
    }
  }
  void copy_out(void* to, ConstMatrixView from) override {
    const size_t bytes = static_cast<size_t>(from.cols) * size_of(from.dtype);
    for (int64_t r = 0; r < from.rows; ++r) {
      std::memcpy(static_cast<std::byte*>(to) + r * bytes, contents(from.row_range(r, 1).data), bytes);
    }
  }

 private:
  std::byte* contents(const void* address) {
    auto block = std::prev(blocks_.upper_bound(static_cast<std::byte*>(const_cast<void*>(address))));
    return block->second.data() + (static_cast<const std::byte*>(address) - block->first);
  }

  std::map<std::byte*, std::vector<std::byte>> blocks_;
};

struct Device {
  std::string name;
  std::function<std::unique_ptr<Backend>()> open;
  bool complete = true;   // overrides every op
  bool optional = false;  // not every machine has it: its tests are skipped there
};

inline void PrintTo(const Device& device, std::ostream* out) { *out << device.name; }

// The CPU backend with the kernels of one instruction set; throws InputError where this machine lacks it.
inline std::unique_ptr<Backend> open_cpu_with(const std::string& isa, int threads = 2) {
  setenv("GPTQ_CPU_ISA", isa.c_str(), 1);
  std::unique_ptr<Backend> backend;
  try {
    backend = open_backend("cpu", {.threads = threads});
  } catch (...) {
    unsetenv("GPTQ_CPU_ISA");
    throw;
  }
  unsetenv("GPTQ_CPU_ISA");
  return backend;
}

// The first OpenCL device, which may be a CPU.
inline std::unique_ptr<Backend> open_xpu() {
  setenv("GPTQ_OPENCL_DEVICES", "all", 1);
  std::unique_ptr<Backend> backend;
  try {
    backend = open_backend("xpu:0");
  } catch (...) {
    unsetenv("GPTQ_OPENCL_DEVICES");
    throw;
  }
  unsetenv("GPTQ_OPENCL_DEVICES");
  return backend;
}

// A new backend is one more entry here.
inline std::vector<Device> devices() {
  std::vector<Device> found;
  for (const char* isa : {"baseline", "avx2", "avx512", "avx512bf16", "amx", "neonbf16"}) {
    try {
      open_cpu_with(isa);
      found.push_back({std::string("cpu_") + isa, [isa] { return open_cpu_with(isa); }});
    } catch (const InputError&) {
    }
  }
  found.push_back({"cuda", [] { return open_backend("cuda:0"); }, true, true});
  found.push_back({"opencl", open_xpu, true, true});
  found.push_back({"simulated", [] { return open_backend("sim:0", {.threads = 2}); }});
  found.push_back({"memory_only", [] { return std::make_unique<MemoryOnlyBackend>(); }, false});
  return found;
}

inline std::vector<DType> float_dtypes() { return {DType::f32, DType::f16, DType::bf16}; }

// Relative error of rounding to nearest: 2^-24 for f32, 2^-11 for f16, 2^-8 for bf16 (plus 2^-25 near zero for f16).
constexpr double kUnit = 0x1p-24;
inline double rounding_error(DType dtype, double value) {
  switch (dtype) {
    case DType::f16:
      return 0x1p-11 * std::abs(value) + 0x1p-25;
    case DType::bf16:
      return 0x1p-8 * std::abs(value);
    case DType::f32:
      return kUnit * std::abs(value);
    default:
      return 0;
  }
}

inline double element(ConstMatrixView m, int64_t r, int64_t c) {
  switch (m.dtype) {
    case DType::f32:
      return m.row<float>(r)[c];
    case DType::f16:
      return static_cast<float>(m.row<Half>(r)[c]);
    case DType::bf16:
      return static_cast<float>(m.row<Bf16>(r)[c]);
    case DType::i32:
      return m.row<int32_t>(r)[c];
    case DType::u8:
      return m.row<uint8_t>(r)[c];
  }
  return 0;
}

inline void set_element(MatrixView m, int64_t r, int64_t c, double value) {
  const auto rounded = static_cast<float>(value);
  if (m.dtype == DType::f32) m.row<float>(r)[c] = rounded;
  if (m.dtype == DType::f16) m.row<Half>(r)[c] = Half(rounded);
  if (m.dtype == DType::bf16) m.row<Bf16>(r)[c] = Bf16(rounded);
  if (m.dtype == DType::i32) m.row<int32_t>(r)[c] = static_cast<int32_t>(value);
  if (m.dtype == DType::u8) m.row<uint8_t>(r)[c] = static_cast<uint8_t>(value);
}

using Generator = std::function<double(int64_t row, int64_t col)>;

inline Generator normal(unsigned seed, double deviation = 1) {
  return [random = std::mt19937(seed), distribution = std::normal_distribution<double>(0, deviation)](
             int64_t, int64_t) mutable { return distribution(random); };
}

// How the rows of a matrix lie in memory: at multiples of their elements' size, or of 8 elements where they have a
// multiple of 8. Kernels may have a fast path for the latter.
enum class Placed { oddly, aligned };
inline std::string name_of(Placed placed) { return placed == Placed::oddly ? "oddly placed" : "aligned"; }

// A matrix on the device and its twin on the host. On the device it lies inside a larger one, with strange bytes
// before, between and after its rows.
class Operand {
 public:
  Operand(Backend& backend, DType dtype, int64_t rows, int64_t cols, const Generator& value = nullptr,
          Placed placed = Placed::oddly)
      : host(host_memory(), dtype, rows, cols),
        before_(placed == Placed::oddly ? 3 : 8),
        backend_(backend),
        padded_(backend, dtype, rows + 2, cols + before_ + (placed == Placed::oddly ? 5 : 8)),
        bytes_(padded_.bytes(), std::byte{0xa5}) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) set_element(host, r, c, value ? value(r, c) : 77);
    }
    copy_to_device();
  }

  // Call after changing `host`.
  void copy_to_device() {
    inside(MatrixView(bytes_.data(), host.dtype(), padded_.rows(), padded_.cols()), host);
    backend_.upload(padded_, bytes_.data());
  }

  MatrixView device() { return padded_.view().block(1, host.rows(), before_, host.cols()); }

  // The device's values; fails the test where a byte outside of the matrix changed.
  Matrix fetch() {
    std::vector<std::byte> now(bytes_.size());
    backend_.download(now.data(), padded_);
    Matrix values(host_memory(), host.dtype(), host.rows(), host.cols());
    const MatrixView all(now.data(), host.dtype(), padded_.rows(), padded_.cols());
    const ConstMatrixView part = all.block(1, host.rows(), before_, host.cols());
    for (int64_t r = 0; r < host.rows() && host.cols() > 0; ++r) {
      std::memcpy(values.view().row_range(r, 1).data, part.row_range(r, 1).data,
                  static_cast<size_t>(host.cols()) * size_of(host.dtype()));
    }
    std::vector<std::byte> expected = bytes_;
    inside(MatrixView(expected.data(), host.dtype(), padded_.rows(), padded_.cols()), values);
    EXPECT_TRUE(expected == now) << "bytes around the matrix changed";
    return values;
  }

  Matrix host;

 private:
  void inside(MatrixView all, ConstMatrixView values) const {
    for (int64_t r = 0; r < values.rows && values.cols > 0; ++r) {
      std::memcpy(all.block(1 + r, 1, before_, values.cols).data, values.row_range(r, 1).data,
                  static_cast<size_t>(values.cols) * size_of(values.dtype));
    }
  }

  const int64_t before_;  // columns of padded_
  Backend& backend_;
  Matrix padded_;
  std::vector<std::byte> bytes_;  // what was last uploaded
};

// Fails where the device's element is further from the host's than the rounding of its dtype plus limit(row, col).
inline void expect_close(Operand& operand, const std::function<double(int64_t, int64_t)>& limit) {
  const Matrix got = operand.fetch();
  for (int64_t r = 0; r < got.rows(); ++r) {
    for (int64_t c = 0; c < got.cols(); ++c) {
      const double a = element(got, r, c), b = element(operand.host, r, c);
      const double allowed = limit(r, c) + 2 * rounding_error(got.dtype(), b);
      ASSERT_TRUE(std::abs(a - b) <= allowed || a == b) << "row " << r << ", column " << c << ": got " << a
                                                        << ", the reference has " << b << ", allowed is " << allowed;
    }
  }
}

inline void expect_same(Operand& operand) {
  const Matrix got = operand.fetch();
  for (int64_t r = 0; r < got.rows(); ++r) {
    for (int64_t c = 0; c < got.cols(); ++c) {
      const double a = element(got, r, c), b = element(operand.host, r, c);
      ASSERT_TRUE(a == b || (std::isnan(a) && std::isnan(b)))
          << "row " << r << ", column " << c << ": got " << a << ", the reference has " << b;
    }
  }
}

class OnEveryDevice : public testing::TestWithParam<Device> {
 protected:
  void SetUp() override {
    try {
      backend_ = GetParam().open();
    } catch (const InputError& error) {
      if (!GetParam().optional) throw;
      GTEST_SKIP() << error.what();
    }
  }
  void TearDown() override {
    if (backend_ == nullptr) return;
    for (const auto& [op, calls] : backend_->fallbacks()) {
      EXPECT_FALSE(GetParam().complete) << op << " ran on the host " << calls << " times";
    }
  }
  Backend& backend() { return *backend_; }

 private:
  std::unique_ptr<Backend> backend_;
};

inline std::string name_of_device(const testing::TestParamInfo<Device>& info) { return info.param.name; }

}  // namespace gptq
