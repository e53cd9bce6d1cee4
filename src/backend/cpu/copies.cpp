// Copies, conversions and gathers, row by row.
#include <cstring>

#include "backend/cpu/cpu_backend.h"

namespace gptq::cpu {
namespace {

void gather_rows(CpuBackend& cpu, const ops::GatherRows& op) {
  cpu.for_rows(op.y.rows, op.y.cols, 1, [&](int64_t row, float* scratch) {
    const int64_t id = op.ids[row];
    if (op.table.dtype == op.y.dtype) {
      std::memcpy(op.y.row_range(row, 1).data, op.table.row_range(id, 1).data,
                  static_cast<size_t>(op.y.cols) * size_of(op.y.dtype));
    } else if (op.y.dtype == DType::f32) {
      cpu.as_f32(op.table, id, op.y.row<float>(row));
    } else {
      cpu.finish_row(cpu.as_f32(op.table, id, scratch), op.y, row);
    }
  });
}

void gather_columns(CpuBackend& cpu, const ops::GatherColumns& op) {
  const auto gather = [&](auto element, int64_t row) {
    using Element = decltype(element);
    const auto* from = op.x.row<Element>(row);
    auto* to = op.y.row<Element>(row);
    for (int64_t i = 0; i < op.y.cols; ++i) to[i] = from[op.ids[i]];
  };
  cpu.for_rows(op.y.rows, op.y.cols, 0, [&](int64_t row, float*) {
    if (size_of(op.x.dtype) == 4) gather(uint32_t{}, row);
    if (size_of(op.x.dtype) == 2) gather(uint16_t{}, row);
    if (size_of(op.x.dtype) == 1) gather(uint8_t{}, row);
  });
}

void convert(CpuBackend& cpu, const ops::Convert& op) {
  cpu.for_rows(op.y.rows, op.y.cols, 1, [&](int64_t row, float* scratch) {
    if (op.x.dtype == op.y.dtype) {
      std::memcpy(op.y.row_range(row, 1).data, op.x.row_range(row, 1).data,
                  static_cast<size_t>(op.y.cols) * size_of(op.y.dtype));
    } else if (op.y.dtype == DType::f32) {
      cpu.as_f32(op.x, row, op.y.row<float>(row));
    } else {
      cpu.finish_row(cpu.as_f32(op.x, row, scratch), op.y, row);
    }
  });
}

void clear(CpuBackend& cpu, const ops::Clear& op) {
  cpu.for_rows(op.y.rows, op.y.cols, 0, [&](int64_t row, float*) {
    std::memset(op.y.row_range(row, 1).data, 0, static_cast<size_t>(op.y.cols) * size_of(op.y.dtype));
  });
}

}  // namespace

void add_copy_ops(CpuOps& table) {
  table.add<gather_rows>();
  table.add<gather_columns>();
  table.add<convert>();
  table.add<clear>();
}

}  // namespace gptq::cpu
