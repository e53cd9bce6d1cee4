// Sums of matrices, row by row.
#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

void add(CpuBackend& cpu, const ops::Add& op) {
  if (op.x.dtype == DType::bf16 && op.y.dtype == DType::f32) {
    return cpu.for_rows(op.y.rows, op.y.cols, 0, [&](int64_t row, float*) {
      cpu.kernels.add_bf16(op.x.row<uint16_t>(row), op.factor, op.y.row<float>(row), op.y.cols);
    });
  }
  cpu.for_rows(op.y.rows, op.y.cols, 2, [&](int64_t row, float* scratch) {
    float* sum = cpu.update_row(op.y, row, scratch);
    cpu.kernels.add(cpu.as_f32(op.x, row, scratch + op.y.cols), op.factor, sum, op.y.cols);
    cpu.finish_row(sum, op.y, row);
  });
}

void add_rows(CpuBackend& cpu, const ops::AddRows& op) {
  cpu.for_rows(op.x.rows, op.x.cols, 2, [&](int64_t row, float* scratch) {
    float* sum = cpu.update_row(op.y, op.ids[row], scratch);
    cpu.kernels.add(cpu.as_f32(op.x, row, scratch + op.x.cols), op.weights[row], sum, op.x.cols);
    cpu.finish_row(sum, op.y, op.ids[row]);
  });
}

}  // namespace

void add_sum_ops(CpuOps& table) {
  table.add<add>();
  table.add<add_rows>();
}

}  // namespace gptq::cpu
