// GPTQ's column loop: a task is as many rows as a SIMD register has lanes.
#include <algorithm>

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

void quantize_columns(CpuBackend& cpu, const ops::QuantizeColumns& op) {
  if (op.w.empty()) return;
  const int64_t tiles = (op.w.rows + cpu.kernels.lanes - 1) / cpu.kernels.lanes, n = op.w.cols;
  cpu.pool.for_each(tiles, [&](int64_t tile) {
    const int64_t first = tile * cpu.kernels.lanes, rows = std::min(cpu.kernels.lanes, op.w.rows - first);
    ScratchPool::Lease lease = cpu.scratch.borrow(2 * cpu.kernels.lanes * n);
    const GridRows grid_rows = {op.grid.scales.row<float>(first),
                                op.grid.zeros.row<uint8_t>(first),
                                op.grid.scales.stride,
                                op.grid.zeros.stride,
                                op.groups.data(),
                                op.grid.bits};
    cpu.kernels.quantize_columns(rows, n, {op.w.row<float>(first), op.w.stride},
                                 {op.feedback.row<float>(first), op.feedback.stride},
                                 {op.factor.row<float>(0), op.factor.stride}, grid_rows, op.codes.row<uint8_t>(first),
                                 op.codes.stride, op.errors.row<float>(first), op.errors.stride,
                                 op.loss.row<float>(first), op.loss.stride, lease.take(2 * cpu.kernels.lanes * n));
  });
}

}  // namespace

void add_column_ops(CpuOps& table) { table.add<quantize_columns>(); }

}  // namespace gptq::cpu
