// Elements moved as they are, or in another dtype.
#include "ops/copies.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

void gather_rows(Xpu& xpu, const ops::GatherRows& op) {
  const Matrix ids = xpu.on_device(op.ids);
  xpu.launch({"copies", "gather_rows"}, elements(op.y.rows, op.y.cols), op.table, ids, op.y, op.y.rows, op.y.cols);
}

void gather_columns(Xpu& xpu, const ops::GatherColumns& op) {
  const Matrix ids = xpu.on_device(op.ids);
  xpu.launch({"copies", "gather_columns"}, elements(op.y.rows, op.y.cols), op.x, ids, op.y,
             static_cast<int32_t>(size_of(op.y.dtype)), op.y.rows, op.y.cols);
}

void convert(Xpu& xpu, const ops::Convert& op) {
  xpu.launch({"copies", "convert"}, elements(op.y.rows, op.y.cols), op.x, op.y, op.y.rows, op.y.cols);
}

void clear(Xpu& xpu, const ops::Clear& op) {
  xpu.launch({"copies", "clear"}, elements(op.y.rows, op.y.cols), op.y, static_cast<int32_t>(size_of(op.y.dtype)),
             op.y.rows, op.y.cols);
}

}  // namespace

void add_copy_ops(XpuOps& table) {
  table.add<gather_rows>();
  table.add<gather_columns>();
  table.add<convert>();
  table.add<clear>();
}

}  // namespace gptq::opencl
