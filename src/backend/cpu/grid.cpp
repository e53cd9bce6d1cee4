// Grids: a task of the search is as many rows as a SIMD register has lanes.
#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

void find_grid(CpuBackend& cpu, const ops::FindGrid& op) {
  if (op.scales.empty()) return;
  std::vector<float> weights(static_cast<size_t>(op.w.cols), 1.0F);
  const float* weight = op.importance.empty() ? weights.data() : op.importance.row<float>(0);
  const int64_t tiles = (op.w.rows + cpu.kernels.lanes - 1) / cpu.kernels.lanes;
  const GridRules rules = {op.search.bits,         op.search.candidates,  op.search.symmetric, op.search.signed_scales,
                           op.search.search_zeros, op.search.shrink_step, op.search.norm};
  cpu.pool.for_each(tiles, [&](int64_t tile) {
    const int64_t first = tile * cpu.kernels.lanes, rows = std::min(cpu.kernels.lanes, op.w.rows - first);
    ScratchPool::Lease lease = cpu.scratch.borrow(cpu.kernels.lanes * op.group_size);
    float* scratch = lease.take(cpu.kernels.lanes * op.group_size);
    for (int64_t group = 0; group < op.scales.cols; ++group) {
      const int64_t column = group * op.group_size;
      cpu.kernels.find_grid(rows, {op.w.row<float>(first) + column, op.w.stride}, weight + column, op.group_size, rules,
                            op.scales.row<float>(first) + group, op.scales.stride, op.zeros.row<uint8_t>(first) + group,
                            op.zeros.stride, scratch);
    }
  });
}

void round_columns(CpuBackend& cpu, const ops::RoundColumns& op) {
  cpu.for_rows(op.w.rows, op.w.cols, 0, [&](int64_t row, float*) {
    cpu.kernels.round_columns(op.w.cols, op.w.row<float>(row), op.grid.scales.row<float>(row),
                              op.grid.zeros.row<uint8_t>(row), op.groups.data(), op.grid.bits,
                              op.codes.row<uint8_t>(row));
  });
}

void dequantize(CpuBackend& cpu, const ops::Dequantize& op) {
  cpu.for_rows(op.w.rows, op.w.cols, 1, [&](int64_t row, float* scratch) {
    float* values = cpu.begin_row(op.w, row, scratch);
    cpu.kernels.dequantize(op.w.cols, op.codes.row<uint8_t>(row), op.grid.scales.row<float>(row),
                           op.grid.zeros.row<uint8_t>(row), op.groups.data(), values);
    cpu.finish_row(values, op.w, row);
  });
}

}  // namespace

void add_grid_ops(CpuOps& table) {
  table.add<find_grid>();
  table.add<round_columns>();
  table.add<dequantize>();
}

}  // namespace gptq::cpu
