// Opening the CPU backend, its memory, and its ops that work row by row.
#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <utility>

#include <cblas.h>
#include <malloc.h>

#include "base/error.h"
#include "base/resources.h"
#include "base/rounding.h"

namespace gptq {
namespace {

constexpr int64_t kFloatsPerLine = 16;  // 64 bytes

std::string processor_name() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos)
      return line.substr(line.find(": ") + 2);
  }
  return "CPU";
}

// "OpenBLAS 0.3.21", from a text that goes on with build options.
std::string blas_name() {
  const std::string config = openblas_get_config();
  const size_t first = config.find(' ');
  return config.substr(0, first == std::string::npos ? first : config.find(' ', first + 1));
}

template <typename Element>
typename GateKernels<Element>::Gate gate_of(const GateKernels<Element>& gates, Activation activation) {
  switch (activation) {
    case Activation::gelu:
      return gates.gelu;
    case Activation::gelu_tanh:
      return gates.gelu_tanh;
    case Activation::relu:
      return gates.relu;
    case Activation::relu_squared:
      return gates.relu_squared;
    case Activation::clamped_swiglu:
      return gates.clamped_swiglu;
    case Activation::silu:
      break;
  }
  return gates.silu;
}

}  // namespace

float* ScratchPool::Lease::take(int64_t count) {
  float* start = buffer_.row<float>(0) + used_;
  used_ += rounded_up(count, kFloatsPerLine);
  return start;
}

ScratchPool::Lease ScratchPool::borrow(int64_t count, int pieces) {
  const int64_t size = rounded_up(count, kFloatsPerLine) + pieces * kFloatsPerLine;
  Slot& slot = slots_[static_cast<size_t>(ThreadPool::thread_index()) % slots_.size()];
  std::vector<Matrix>& free = slot.free;
  Matrix buffer;
  {
    std::lock_guard lock(slot.mutex);
    // The smallest that is large enough; else the largest, which then makes room for a larger one.
    const auto better = [&](const Matrix& a, const Matrix& b) {
      return a.cols() >= size && b.cols() >= size ? a.cols() < b.cols() : a.cols() > b.cols();
    };
    const auto best = std::min_element(free.begin(), free.end(), better);
    if (best != free.end()) {
      std::swap(*best, free.back());
      buffer = std::move(free.back());
      free.pop_back();
    }
  }
  if (buffer.cols() < size) {
    buffer = Matrix();
    buffer = Matrix(host_memory(), DType::f32, 1, size);
  }
  return {slot, std::move(buffer)};
}

ScratchPool::Lease::~Lease() {
  std::lock_guard lock(slot_.mutex);
  slot_.free.push_back(std::move(buffer_));
}

// OpenBLAS's own threads are switched off for the process: they would split sums differently on each machine.
CpuBackend::CpuBackend(const BackendOptions& options)
    : host_(options.memory != nullptr ? *options.memory : host_memory()),
      limited_(host_, "cpu", options.memory_bytes),
      kernels_(kernels_for_this_cpu()),
      pool_(options.threads) {
  openblas_set_num_threads(1);
}

std::unique_ptr<Backend> open_cpu(int /*index*/, const BackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

std::vector<DeviceInfo> list_cpu() {
  const HostMemoryInfo memory = host_memory_info();
  return {{"cpu", cat(processor_name(), ", ", available_cores(), available_cores() == 1 ? " core" : " cores"),
           memory.total_bytes, memory.free_bytes}};
}

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
  return cat(processor_name(), ", ", pool_.size(), pool_.size() == 1 ? " thread, " : " threads, ", kernels_.isa, ", ",
             blas_name());
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

const float* CpuBackend::as_f32(ConstMatrixView m, int64_t row, float* scratch) const {
  switch (m.dtype) {
    case DType::f16:
      kernels_.f16_to_f32(m.row<uint16_t>(row), scratch, m.cols);
      return scratch;
    case DType::bf16:
      kernels_.bf16_to_f32(m.row<uint16_t>(row), scratch, m.cols);
      return scratch;
    default:
      return m.row<float>(row);
  }
}

float* CpuBackend::begin_row(const MatrixView& m, int64_t row, float* scratch) const {
  return m.dtype == DType::f32 ? m.row<float>(row) : scratch;
}

float* CpuBackend::update_row(MatrixView m, int64_t row, float* scratch) const {
  as_f32(m, row, scratch);
  return begin_row(m, row, scratch);
}

void CpuBackend::finish_row(const float* computed, const MatrixView& m, int64_t row) const {
  if (m.dtype == DType::f16) kernels_.f32_to_f16(computed, m.row<uint16_t>(row), m.cols);
  if (m.dtype == DType::bf16) kernels_.f32_to_bf16(computed, m.row<uint16_t>(row), m.cols);
}

void CpuBackend::round_row(float* row, DType dtype, int64_t n) const {
  constexpr int64_t kPiece = 256;
  uint16_t rounded[kPiece];
  for (int64_t first = 0; first < n; first += kPiece) {
    const int64_t count = std::min(kPiece, n - first);
    const MatrixView piece(rounded, dtype, 1, count);
    finish_row(row + first, piece, 0);
    as_f32(piece, 0, row + first);
  }
}

void CpuBackend::gather_rows(ConstMatrixView table, std::span<const int32_t> ids, MatrixView y) {
  for_rows(y.rows, y.cols, 1, [&](int64_t row, float* scratch) {
    const int64_t id = ids[row];
    if (table.dtype == y.dtype) {
      std::memcpy(y.row_range(row, 1).data, table.row_range(id, 1).data,
                  static_cast<size_t>(y.cols) * size_of(y.dtype));
    } else if (y.dtype == DType::f32) {
      as_f32(table, id, y.row<float>(row));
    } else {
      finish_row(as_f32(table, id, scratch), y, row);
    }
  });
}

void CpuBackend::gather_columns(ConstMatrixView x, std::span<const int32_t> ids, MatrixView y) {
  const auto gather = [&](auto element, int64_t row) {
    using Element = decltype(element);
    const auto* from = x.row<Element>(row);
    auto* to = y.row<Element>(row);
    for (int64_t i = 0; i < y.cols; ++i) to[i] = from[ids[i]];
  };
  for_rows(y.rows, y.cols, 0, [&](int64_t row, float*) {
    if (size_of(x.dtype) == 4) gather(uint32_t{}, row);
    if (size_of(x.dtype) == 2) gather(uint16_t{}, row);
    if (size_of(x.dtype) == 1) gather(uint8_t{}, row);
  });
}

void CpuBackend::convert(ConstMatrixView x, MatrixView y) {
  for_rows(y.rows, y.cols, 1, [&](int64_t row, float* scratch) {
    if (x.dtype == y.dtype) {
      std::memcpy(y.row_range(row, 1).data, x.row_range(row, 1).data, static_cast<size_t>(y.cols) * size_of(y.dtype));
    } else if (y.dtype == DType::f32) {
      as_f32(x, row, y.row<float>(row));
    } else {
      finish_row(as_f32(x, row, scratch), y, row);
    }
  });
}

void CpuBackend::clear(MatrixView y) {
  for_rows(y.rows, y.cols, 0, [&](int64_t row, float*) {
    std::memset(y.row_range(row, 1).data, 0, static_cast<size_t>(y.cols) * size_of(y.dtype));
  });
}

void CpuBackend::add(ConstMatrixView x, float factor, MatrixView y) {
  if (x.dtype == DType::bf16 && y.dtype == DType::f32) {
    return for_rows(y.rows, y.cols, 0, [&](int64_t row, float*) {
      kernels_.add_bf16(x.row<uint16_t>(row), factor, y.row<float>(row), y.cols);
    });
  }
  for_rows(y.rows, y.cols, 2, [&](int64_t row, float* scratch) {
    float* sum = update_row(y, row, scratch);
    kernels_.add(as_f32(x, row, scratch + y.cols), factor, sum, y.cols);
    finish_row(sum, y, row);
  });
}

std::vector<float> CpuBackend::widened(ConstMatrixView m) const {
  std::vector<float> wide(static_cast<size_t>(m.size()));
  for (int64_t r = 0; r < m.rows && m.cols > 0; ++r) {
    float* to = wide.data() + r * m.cols;
    const float* values = as_f32(m, r, to);
    if (values != to) std::copy_n(values, m.cols, to);
  }
  return wide;
}

void CpuBackend::rms_norm(ConstMatrixView x, ConstMatrixView weight, float eps, MatrixView y) {
  if (x.empty()) return;
  const std::vector<float> weights = widened(weight);
  const int64_t width = weight.cols;
  for_rows(x.rows, x.cols, 2, [&](int64_t row, float* scratch) {
    const float* values = as_f32(x, row, scratch);
    float* normed = begin_row(y, row, scratch + x.cols);
    for (int64_t first = 0; first < x.cols; first += width) {
      const float mean = kernels_.sum_of_squares(values + first, width) / static_cast<float>(width);
      const float *scaling = weights.data() + first % static_cast<int64_t>(weights.size()), *from = values + first;
      const float factor = 1 / std::sqrt(mean + eps);
      if (y.dtype == DType::bf16)
        kernels_.scale_by_bf16(from, scaling, factor, y.row<uint16_t>(row) + first, width);
      else
        kernels_.scale_by(from, scaling, factor, normed + first, width);
    }
    if (y.dtype != DType::bf16) finish_row(normed, y, row);
  });
}

void CpuBackend::layer_norm(ConstMatrixView x, ConstMatrixView weight, ConstMatrixView bias, float eps, MatrixView y) {
  if (x.empty()) return;
  const std::vector<float> weights = widened(weight), biases = widened(bias);
  const int64_t width = weight.cols;
  for_rows(x.rows, x.cols, 2, [&](int64_t row, float* scratch) {
    const float* values = as_f32(x, row, scratch);
    float* normed = begin_row(y, row, scratch + x.cols);
    for (int64_t first = 0; first < x.cols; first += width) {
      const int64_t place = first % static_cast<int64_t>(weights.size());
      float* group = normed + first;
      kernels_.centre(values + first, group, width);
      const float variance = kernels_.sum_of_squares(group, width) / static_cast<float>(width);
      kernels_.scale_by(group, weights.data() + place, 1 / std::sqrt(variance + eps), group, width);
      if (!biases.empty()) kernels_.add(biases.data() + place, 1, group, width);
    }
    finish_row(normed, y, row);
  });
}

void CpuBackend::rope(ConstMatrixView cos, ConstMatrixView sin, SequenceOffsets offsets, RotaryOrder order,
                      int64_t head_dim, MatrixView x) {
  std::vector<int64_t> positions;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    for (int64_t token = offsets[s]; token < offsets[s + 1]; ++token) positions.push_back(token - offsets[s]);
  }
  const bool is_bf16 = order == RotaryOrder::halves && x.dtype == DType::bf16;
  for_rows(x.rows, x.cols, is_bf16 ? 0 : 1, [&](int64_t row, float* scratch) {
    const int64_t position = positions[static_cast<size_t>(row)];
    const float *c = cos.row<float>(position), *s = sin.row<float>(position);
    float* values = is_bf16 ? nullptr : update_row(x, row, scratch);
    for (int64_t head = 0; head + head_dim <= x.cols; head += head_dim) {
      if (is_bf16) {
        uint16_t* low = x.row<uint16_t>(row) + head;
        kernels_.rotate_bf16(c, s, low, low + cos.cols, cos.cols);
      } else if (order == RotaryOrder::halves) {
        kernels_.rotate(c, s, values + head, values + head + cos.cols, cos.cols);
      } else {
        kernels_.rotate_pairs(c, s, values + head, cos.cols);
      }
    }
    if (!is_bf16) finish_row(values, x, row);
  });
}

GateKernels<uint16_t>::Gate CpuBackend::gate_bf16(Activation activation) const {
  return gate_of(kernels_.gates_bf16, activation);
}

void CpuBackend::gate(ConstMatrixView gate, ConstMatrixView up, Activation activation, MatrixView y) {
  if (gate.dtype == DType::bf16 && y.dtype == DType::bf16 && (up.empty() || up.dtype == DType::bf16)) {
    const auto kernel = gate_bf16(activation);
    constexpr uint16_t kOne = 0x3f80;
    const std::vector<uint16_t> ones(static_cast<size_t>(up.empty() ? y.cols : 0), kOne);
    return for_rows(y.rows, y.cols, 0, [&](int64_t row, float*) {
      kernel(gate.row<uint16_t>(row), up.empty() ? ones.data() : up.row<uint16_t>(row), y.row<uint16_t>(row), y.cols);
    });
  }
  const auto kernel = gate_of(kernels_.gates, activation);
  const std::vector<float> ones(static_cast<size_t>(up.empty() ? y.cols : 0), 1.0F);
  for_rows(y.rows, y.cols, 3, [&](int64_t row, float* scratch) {
    float* result = begin_row(y, row, scratch);
    const float* factors = up.empty() ? ones.data() : as_f32(up, row, scratch + 2 * y.cols);
    kernel(as_f32(gate, row, scratch + y.cols), factors, result, y.cols);
    finish_row(result, y, row);
  });
}

void CpuBackend::cap(Cap kind, float bound, MatrixView x) {
  for_rows(x.rows, x.cols, 1, [&](int64_t row, float* scratch) {
    float* values = update_row(x, row, scratch);
    (kind == Cap::hard ? kernels_.hard_cap : kernels_.soft_cap)(bound, values, x.cols);
    finish_row(values, x, row);
  });
}

void CpuBackend::add_rows(ConstMatrixView x, std::span<const int32_t> ids, std::span<const float> weights,
                          MatrixView y) {
  for_rows(x.rows, x.cols, 2, [&](int64_t row, float* scratch) {
    float* sum = update_row(y, ids[row], scratch);
    kernels_.add(as_f32(x, row, scratch + x.cols), weights[row], sum, x.cols);
    finish_row(sum, y, ids[row]);
  });
}

void CpuBackend::permute_symmetric(ConstMatrixView h, std::span<const int32_t> order, float damp, MatrixView y) {
  for_rows(y.rows, y.cols, 0, [&](int64_t i, float*) {
    float* row = y.row<float>(i);
    const int64_t a = order[i];
    const float* stored = h.row<float>(a);
    for (int64_t j = 0; j <= i; ++j) {
      const int64_t b = order[j];
      row[j] = b <= a ? stored[b] : h.row<float>(b)[a];
    }
    row[i] += damp;
    std::fill(row + i + 1, row + y.cols, 0.0F);
  });
}

void CpuBackend::add_row_norms(ConstMatrixView x, MatrixView norms) {
  for_rows(x.rows, x.cols, 1, [&](int64_t row, float* scratch) {
    norms.row<float>(row)[0] += kernels_.sum_of_squares(as_f32(x, row, scratch), x.cols);
  });
}

void CpuBackend::group_products(ConstMatrixView x, ConstMatrixView y, int64_t group_size, MatrixView products) {
  for_rows(products.rows, x.cols, 0, [&](int64_t row, float*) {
    for (int64_t group = 0; group < products.cols; ++group) {
      const int64_t first = group * group_size;
      products.row<float>(row)[group] =
          kernels_.product(x.row<float>(row) + first, y.row<float>(row) + first, group_size);
    }
  });
}

// A task is a square tile below the diagonal, or on it.
void CpuBackend::mirror(MatrixView h) {
  constexpr int64_t kTile = 64;
  const int64_t tiles = (h.rows + kTile - 1) / kTile;
  pool_.for_each(tiles * tiles, [&](int64_t task) {
    const int64_t i0 = task / tiles * kTile, j0 = task % tiles * kTile;
    if (j0 > i0) return;
    for (int64_t i = i0; i < std::min(h.rows, i0 + kTile); ++i) {
      for (int64_t j = j0; j < std::min(i, j0 + kTile); ++j) h.row<float>(j)[i] = h.row<float>(i)[j];
    }
  });
}

CpuBackend::Softmax CpuBackend::softmax_of(const float* x, int64_t n) const {
  const float top = kernels_.maximum(x, n);
  return {top, static_cast<float>(top + std::log(kernels_.sum_of_exponentials(x, top, n)))};
}

void CpuBackend::token_losses(ConstMatrixView logits, std::span<const int32_t> targets, MatrixView losses) {
  for_rows(logits.rows, logits.cols, 1, [&](int64_t row, float* scratch) {
    const float* x = as_f32(logits, row, scratch);
    losses.row<float>(row)[0] = softmax_of(x, logits.cols).log_sum - x[targets[row]];
  });
}

void CpuBackend::compare_logits(ConstMatrixView p, ConstMatrixView q, MatrixView divergence, MatrixView same_top) {
  for_rows(p.rows, p.cols, 2, [&](int64_t row, float* scratch) {
    const float *a = as_f32(p, row, scratch), *b = as_f32(q, row, scratch + p.cols);
    const Softmax of_a = softmax_of(a, p.cols), of_b = softmax_of(b, p.cols);
    divergence.row<float>(row)[0] = static_cast<float>(kernels_.divergence(a, of_a.log_sum, b, of_b.log_sum, p.cols));
    const auto place = [&](const float* x, float top) { return std::find(x, x + p.cols, top) - x; };
    same_top.row<float>(row)[0] = place(a, of_a.top) == place(b, of_b.top) ? 1.0F : 0.0F;
  });
}

}  // namespace gptq
