// Norms, row by row.
#include <cmath>
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

void rms_norm(CpuBackend& cpu, const ops::RmsNorm& op) {
  if (op.x.empty()) return;
  const std::vector<float> weights = cpu.widened(op.weight);
  const int64_t width = op.weight.cols;
  cpu.for_rows(op.x.rows, op.x.cols, 2, [&](int64_t row, float* scratch) {
    const float* values = cpu.as_f32(op.x, row, scratch);
    float* normed = cpu.begin_row(op.y, row, scratch + op.x.cols);
    for (int64_t first = 0; first < op.x.cols; first += width) {
      const float mean = cpu.kernels.sum_of_squares(values + first, width) / static_cast<float>(width);
      const float *scaling = weights.data() + first % static_cast<int64_t>(weights.size()), *from = values + first;
      const float factor = 1 / std::sqrt(mean + op.eps);
      if (op.y.dtype == DType::bf16)
        cpu.kernels.scale_by_bf16(from, scaling, factor, op.y.row<uint16_t>(row) + first, width);
      else
        cpu.kernels.scale_by(from, scaling, factor, normed + first, width);
    }
    if (op.y.dtype != DType::bf16) cpu.finish_row(normed, op.y, row);
  });
}

void layer_norm(CpuBackend& cpu, const ops::LayerNorm& op) {
  if (op.x.empty()) return;
  const std::vector<float> weights = cpu.widened(op.weight), biases = cpu.widened(op.bias);
  const int64_t width = op.weight.cols;
  cpu.for_rows(op.x.rows, op.x.cols, 2, [&](int64_t row, float* scratch) {
    const float* values = cpu.as_f32(op.x, row, scratch);
    float* normed = cpu.begin_row(op.y, row, scratch + op.x.cols);
    for (int64_t first = 0; first < op.x.cols; first += width) {
      const int64_t place = first % static_cast<int64_t>(weights.size());
      float* group = normed + first;
      cpu.kernels.centre(values + first, group, width);
      const float variance = cpu.kernels.sum_of_squares(group, width) / static_cast<float>(width);
      cpu.kernels.scale_by(group, weights.data() + place, 1 / std::sqrt(variance + op.eps), group, width);
      if (!biases.empty()) cpu.kernels.add(biases.data() + place, 1, group, width);
    }
    cpu.finish_row(normed, op.y, row);
  });
}

}  // namespace

void add_norm_ops(CpuOps& table) {
  table.add<rms_norm>();
  table.add<layer_norm>();
}

}  // namespace gptq::cpu
