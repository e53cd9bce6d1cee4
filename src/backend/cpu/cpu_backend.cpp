#include "backend/cpu/cpu_backend.h"

#include <cstring>
#include <fstream>
#include <utility>

#include <cblas.h>
#include <malloc.h>

#include "backend/all_ops.h"
#include "backend/cpu/blas.h"
#include "base/error.h"
#include "base/resources.h"

namespace gptq {
namespace cpu {
namespace {

std::string processor_name() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  }
  return "CPU";
}

// "OpenBLAS 0.3.21", the start of a text that lists build options.
std::string blas_name() {
  const std::string config = openblas_get_config();
  const size_t first = config.find(' ');
  return config.substr(0, first == std::string::npos ? first : config.find(' ', first + 1));
}

}  // namespace

CpuBackend::CpuBackend(const BackendOptions& options)
    : kernels(kernels_for_this_cpu()),
      products(*kernels.products),
      pool(options.threads),
      scratch(pool.size()),
      host_(options.memory != nullptr ? *options.memory : host_memory()),
      limited_(host_, "cpu", options.memory_bytes) {
  prepare_blas(pool.size());
}

void CpuBackend::compute(const ops::OpRef& op) {
  if (!all_ops<CpuOps>().run(*this, op)) fall_back(op);
}

int64_t CpuBackend::scratch_bytes(const OpCall& call) const { return all_ops<CpuOps>().scratch_bytes(*this, call); }

void CpuBackend::trim() noexcept {
  memory_.trim();
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

Backend::MemoryUse CpuBackend::memory_use() const {
  return {limited_.bytes(), static_cast<int64_t>(memory_.bytes_held()), limited_.peak_bytes()};
}

std::string CpuBackend::description() const {
  return cat(processor_name(), ", ", pool.size(), pool.size() == 1 ? " thread, " : " threads, ", kernels.isa, ", ",
             blas_name());
}

std::string CpuBackend::arithmetic() const {
  return cat("cpu, ", kernels.isa, ", ", blas_name(), " ", openblas_get_corename());
}

void CpuBackend::copy_in(MatrixView to, const void* from) {
  const size_t row_bytes = static_cast<size_t>(to.cols) * size_of(to.dtype);
  if (row_bytes == 0) return;
  for (int64_t r = 0; r < to.rows; ++r) {
    std::memcpy(to.row_range(r, 1).data, static_cast<const std::byte*>(from) + r * row_bytes, row_bytes);
  }
}

void CpuBackend::copy_out(void* to, ConstMatrixView from) {
  const size_t row_bytes = static_cast<size_t>(from.cols) * size_of(from.dtype);
  if (row_bytes == 0) return;
  for (int64_t r = 0; r < from.rows; ++r) {
    std::memcpy(static_cast<std::byte*>(to) + r * row_bytes, from.row_range(r, 1).data, row_bytes);
  }
}

const float* CpuBackend::as_f32(ConstMatrixView m, int64_t row, float* to) const {
  switch (m.dtype) {
    case DType::f16:
      kernels.f16_to_f32(m.row<uint16_t>(row), to, m.cols);
      return to;
    case DType::bf16:
      kernels.bf16_to_f32(m.row<uint16_t>(row), to, m.cols);
      return to;
    default:
      return m.row<float>(row);
  }
}

float* CpuBackend::begin_row(const MatrixView& m, int64_t row, float* to) const {
  return m.dtype == DType::f32 ? m.row<float>(row) : to;
}

float* CpuBackend::update_row(MatrixView m, int64_t row, float* to) const {
  as_f32(m, row, to);
  return begin_row(m, row, to);
}

void CpuBackend::finish_row(const float* computed, const MatrixView& m, int64_t row) const {
  if (m.dtype == DType::f16) kernels.f32_to_f16(computed, m.row<uint16_t>(row), m.cols);
  if (m.dtype == DType::bf16) kernels.f32_to_bf16(computed, m.row<uint16_t>(row), m.cols);
}

std::vector<float> CpuBackend::widened(ConstMatrixView m) const {
  std::vector<float> wide(static_cast<size_t>(m.size()));
  for (int64_t r = 0; r < m.rows && m.cols > 0; ++r) {
    float* place = wide.data() + r * m.cols;
    const float* values = as_f32(m, r, place);
    if (values != place) std::copy_n(values, m.cols, place);
  }
  return wide;
}

}  // namespace cpu

std::unique_ptr<Backend> open_cpu(int /*index*/, const BackendOptions& options) {
  return std::make_unique<cpu::CpuBackend>(options);
}

std::vector<DeviceInfo> list_cpu() {
  const HostMemoryInfo memory = host_memory_info();
  return {{"cpu", cat(cpu::processor_name(), ", ", available_cores(), available_cores() == 1 ? " core" : " cores"),
           memory.total_bytes, memory.free_bytes}};
}

}  // namespace gptq
