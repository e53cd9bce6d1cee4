// Products of a few rows, limited by reading weights: packed ones, whose codes are multiplied as they are, and others.
#include "ops/packed.h"

#include <algorithm>
#include <vector>

#include "backend/cpu/narrow_kernels.h"
#include "backend/cpu/partition.h"
#include "backend/cpu/products.h"

namespace gptq::cpu {
namespace {

constexpr int64_t kOutputs = 1024;  // of a task at most: their sums stay in L1
constexpr int64_t kLine = 16;       // outputs whose words are a cache line

// Tasks of `outputs` outputs that read `bytes`: one for each thread, and one alone where waking threads takes longer.
EvenPartition tasks_of(const CpuBackend& cpu, int64_t outputs, int64_t bytes) {
  constexpr int64_t kLeastBytes = 32 << 10;
  const int64_t wanted = std::min<int64_t>(cpu.pool.size(), pieces_of(bytes, kLeastBytes));
  return {outputs, std::max(wanted, rounded_up(pieces_of(outputs, kOutputs), wanted)), kLine};
}

void dequantize_packed(CpuBackend& cpu, const ops::DequantizePacked& op) {
  if (op.w.empty()) return;
  const PackedWeight& weight = op.weight;
  Matrix codes(cpu, DType::u8, op.w.rows, op.w.cols);
  cpu.run(ops::Unpack{.words = weight.words, .bits = weight.bits, .codes = codes});
  std::vector<int32_t> group_of(static_cast<size_t>(op.w.cols));
  for (size_t k = 0; k < group_of.size(); ++k) group_of[k] = static_cast<int32_t>(k / weight.group_size);
  const int64_t groups = weight.scales.rows;
  const std::vector<float> scales = cpu.widened(weight.scales);
  cpu.for_rows(op.w.rows, op.w.cols + groups, 1, [&](int64_t row, float* scratch) {
    float* const own_scales = scratch + op.w.cols;
    std::vector<uint8_t> own_zeros(static_cast<size_t>(groups));
    for (int64_t group = 0; group < groups; ++group) {
      own_scales[group] = scales[static_cast<size_t>(group * op.w.rows + row)];
      own_zeros[static_cast<size_t>(group)] = weight.zeros.row<uint8_t>(group)[row];
    }
    float* const values = cpu.begin_row(op.w, row, scratch);
    cpu.kernels.dequantize(op.w.cols, codes.row<uint8_t>(row), own_scales, own_zeros.data(), group_of.data(), values);
    cpu.finish_row(values, op.w, row);
  });
}

// x [rows, inputs] in f32, and the sums of each row's groups [groups, rows]; in pairs where codes are multiplied by
// bf16.
struct WideInput {
  std::vector<float> x, totals;
  std::vector<uint32_t> pairs;  // [rows, inputs / 2], or none
};

WideInput wide_input(const CpuBackend& cpu, ConstMatrixView x, const PackedWeight& weight) {
  WideInput wide{.x = cpu.widened(x), .totals = {}, .pairs = {}};
  const bool has_halves = weight.bits == 2 || weight.bits == 4;
  if (cpu.kernels.narrow->add_codes_bf16 != nullptr && x.dtype == DType::bf16 && has_halves) {
    wide.pairs.resize(static_cast<size_t>(x.size() / 2));
    for (int64_t row = 0; row < x.rows; ++row)
      paired_bf16(x.row<uint16_t>(row), x.cols, weight.bits, wide.pairs.data() + row * x.cols / 2);
  }
  for (int64_t first = 0; first < x.cols; first += weight.group_size) {
    const int64_t count = std::min(weight.group_size, x.cols - first);
    for (int64_t row = 0; row < x.rows; ++row) {
      float sum = 0;
      for (int64_t k = 0; k < count; ++k) sum += wide.x[static_cast<size_t>(row * x.cols + first + k)];
      wide.totals.push_back(sum);
    }
  }
  return wide;
}

// Outputs [first, first + n): group by group, sums of codes become sums of weights.
void multiply_codes(CpuBackend& cpu, const ops::PackedLinear& op, const WideInput& input, int64_t first, int64_t n) {
  const NarrowKernels& kernels = *cpu.kernels.narrow;
  const PackedWeight weight = op.weight.part(first, n);
  const int64_t rows = op.x.rows, inputs = op.x.cols, width = rounded_up(n, kLine);
  ScratchPool::Lease lease = cpu.scratch.borrow((2 * rows + 1) * width, 3);
  float *const sums = lease.take(rows * width), *const results = lease.take(rows * width),
               *const wide = lease.take(width);
  std::fill_n(results, rows * width, 0.0F);
  for (int64_t row = 0; row < rows && !op.bias.empty(); ++row) {
    const ConstMatrixView bias = op.bias.col_range(first, n);
    std::copy_n(cpu.as_f32(bias, 0, wide), n, results + row * width);
  }
  for (int64_t group = 0, k = 0; k < inputs; ++group, k += weight.group_size) {
    const CodeColumns codes{weight.words.row<uint32_t>(k * weight.bits / 32), weight.words.stride, n, weight.bits};
    std::fill_n(sums, rows * width, 0.0F);
    const int64_t count = std::min(weight.group_size, inputs - k);
    if (input.pairs.empty()) {
      kernels.add_codes(codes, count, {input.x.data() + k, inputs}, rows, sums, width);
    } else {
      kernels.add_codes_bf16(codes, count, input.pairs.data() + k / 2, inputs / 2, rows, sums, width);
    }
    const float* const scales = cpu.as_f32(weight.scales, group, wide);
    for (int64_t row = 0; row < rows; ++row) {
      kernels.add_group(sums + row * width, scales, weight.zeros.row<uint8_t>(group),
                        input.totals[static_cast<size_t>(group * rows + row)], n, results + row * width);
    }
  }
  const MatrixView y = op.y.col_range(first, n);
  for (int64_t row = 0; row < rows; ++row) {
    if (y.dtype == DType::f32) std::copy_n(results + row * width, n, y.row<float>(row));
    cpu.finish_row(results + row * width, y, row);
  }
}

void packed_linear(CpuBackend& cpu, const ops::PackedLinear& op) {
  if (op.y.empty()) return;
  if (op.x.rows > NarrowKernels::kMostRows) {
    const int64_t half = op.x.rows / 2, rest = op.x.rows - half;
    packed_linear(cpu, {op.x.row_range(0, half), op.weight, op.bias, op.y.row_range(0, half)});
    return packed_linear(cpu, {op.x.row_range(half, rest), op.weight, op.bias, op.y.row_range(half, rest)});
  }
  const WideInput input = wide_input(cpu, op.x, op.weight);
  const EvenPartition tasks = tasks_of(cpu, op.y.cols, op.y.cols * op.x.cols * op.weight.bits / 8);
  cpu.pool.for_each(tasks.count,
                    [&](int64_t task) { multiply_codes(cpu, op, input, tasks.start(task), tasks.length(task)); });
}

void narrow_linear(CpuBackend& cpu, const ops::NarrowLinear& op) {
  if (op.y.empty()) return;
  if (op.x.rows > ops::NarrowLinear::kMostRows) return op.compose(cpu);
  const NarrowKernels& kernels = *cpu.kernels.narrow;
  const int64_t inputs = op.x.cols, rows = op.x.rows;
  const std::vector<float> x = cpu.widened(op.x), bias = cpu.widened(op.bias);
  const EvenPartition tasks = tasks_of(cpu, op.w.rows, op.w.size() * static_cast<int64_t>(size_of(op.w.dtype)));
  cpu.pool.for_each(tasks.count, [&](int64_t task) {
    const int64_t first = tasks.start(task), n = tasks.length(task);
    ScratchPool::Lease lease = cpu.scratch.borrow(inputs + rows * n, 2);
    float *const wide = lease.take(inputs), *const results = lease.take(rows * n);
    const bool is_bf16 = op.w.dtype == DType::bf16;
    for (int64_t i = 0; i < n; ++i) {
      const float* const w = is_bf16 ? nullptr : cpu.as_f32(op.w, first + i, wide);
      for (int64_t row = 0; row < rows; ++row) {
        const float* const own = x.data() + row * inputs;
        results[row * n + i] = (is_bf16 ? kernels.product_bf16(own, op.w.row<uint16_t>(first + i), inputs)
                                        : kernels.product(own, w, inputs)) +
                               (bias.empty() ? 0.0F : bias[static_cast<size_t>(first + i)]);
      }
    }
    const MatrixView y = op.y.col_range(first, n);
    for (int64_t row = 0; row < rows; ++row) {
      if (y.dtype == DType::f32) std::copy_n(results + row * n, n, y.row<float>(row));
      cpu.finish_row(results + row * n, y, row);
    }
  });
}

}  // namespace

void add_packed_ops(CpuOps& table) {
  table.add<dequantize_packed>();
  table.add<packed_linear>();
  table.add<narrow_linear>();
}

}  // namespace gptq::cpu
