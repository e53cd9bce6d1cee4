// Sums of matrices.
#include "ops/sums.h"

#include "backend/opencl/xpu.h"

namespace gptq::opencl {
namespace {

void add(Xpu& xpu, const ops::Add& op) {
  xpu.launch({"sums", "add"}, elements(op.y.rows, op.y.cols), op.x, op.factor, op.y, op.y.rows, op.y.cols);
}

void add_rows(Xpu& xpu, const ops::AddRows& op) {
  const Matrix ids = xpu.on_device(op.ids), weights = xpu.on_device(op.weights);
  xpu.launch({"sums", "add_rows"}, elements(op.x.rows, op.x.cols), op.x, ids, weights, op.y, op.x.rows, op.x.cols);
}

}  // namespace

void add_sum_ops(XpuOps& table) {
  table.add<add>();
  table.add<add_rows>();
}

}  // namespace gptq::opencl
