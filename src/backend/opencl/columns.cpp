// GPTQ's column loop.
#include "ops/columns.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

void quantize_columns(Xpu& xpu, const ops::QuantizeColumns& op) {
  if (op.w.empty()) return;
  constexpr int64_t kRows = 32;
  const int64_t rows = op.w.rows, n = op.w.cols;
  const Matrix groups = xpu.on_device(op.groups);
  Matrix turned(xpu.memory(), DType::f32, n, kMostColumns), diagonal(xpu.memory(), DType::f32, 1, n);
  xpu.launch({"columns", "turn_factor"}, elements(n, kMostColumns), op.factor, turned, diagonal,
             static_cast<int32_t>(n));
  xpu.launch({"columns", "quantize_columns"}, opencl::Grid{{pieces_of(rows, kRows), 1, 1}, {kRows, 1, 1}}, op.w,
             op.feedback, turned, diagonal, groups, op.grid.scales, op.grid.zeros,
             static_cast<float>((1 << op.grid.bits) - 1), op.codes, op.errors, op.loss, rows, static_cast<int32_t>(n));
}

}  // namespace

void add_column_ops(XpuOps& table) { table.add<quantize_columns>(); }

}  // namespace gptq::opencl
